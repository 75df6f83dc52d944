"""The daemon process: how it starts, what it is made of, how it stops."""
