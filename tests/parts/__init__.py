"""Real third-party programs, started by the tests themselves."""
