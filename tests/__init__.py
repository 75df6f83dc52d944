"""The tests mirror the package: tests/nostr/test_event.py tests pylon/nostr/event.py."""
