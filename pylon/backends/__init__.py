"""Backends: what completes prompts, how they are found, and how one is chosen for a prompt."""
