"""The Nostr protocol, pure: no sockets, no files, no clock. One module per NIP."""
