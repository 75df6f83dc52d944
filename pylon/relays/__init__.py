"""Relays: one thread and one socket each, and what keeps a bad one from hurting the others."""
