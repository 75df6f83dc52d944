"""Sold and bought over real Lightning channels on regtest (`make test-real-lightning`)."""
