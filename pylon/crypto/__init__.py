"""secp256k1 and ciphers. Nothing here is arithmetic of our own: libraries do the work."""
