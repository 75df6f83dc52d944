"""The Nostr protocol."""
