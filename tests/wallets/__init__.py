"""Tests of pylon.wallets."""
