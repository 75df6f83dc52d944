"""Tests of pylon.relays."""
