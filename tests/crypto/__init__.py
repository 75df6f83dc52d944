"""Keys, signatures and ciphers."""
