"""The built-in agent runner: a program of its own that talks JSON-RPC on stdin and stdout.

It runs inside the cage of `pylon.host.cage` and imports nothing of Pylon.
"""
