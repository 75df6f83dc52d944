"""Measurements of the goals of speed and memory: `make bench`."""
