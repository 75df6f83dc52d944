#!/usr/bin/python3
"""Does nothing, and ignores TERM."""
import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    signal.pause()
