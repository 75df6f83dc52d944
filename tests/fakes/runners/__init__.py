"""Runners that sin, each named after its sin; started inside the cage like any other."""
