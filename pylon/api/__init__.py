"""The HTTP endpoint: the OpenAI API on loopback, served by the local backends or bought."""
