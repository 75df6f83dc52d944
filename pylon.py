#!/usr/bin/env python3
"""Launcher for a checkout; holds nothing but the call."""

import sys

from pylon.cli import main

if __name__ == "__main__":
    sys.exit(main())
