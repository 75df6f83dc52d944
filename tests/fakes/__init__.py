"""Small stand-ins that misbehave on purpose."""
