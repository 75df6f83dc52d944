#!/usr/bin/python3
"""Eats memory until it dies of it."""
hoard = []
while True:
    hoard.append(bytearray(50_000_000))
