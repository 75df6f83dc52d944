"""Host mode: agents with a key, money and a life of their own, and what keeps them in bounds."""
