"""The buying side: finding providers, ordering, choosing, paying, and what comes back.

Used by the command line, by the HTTP endpoint and by agents, each with keys and an account of
its own. `draft` says what is wanted, `replies` reads what providers send, `choose` decides what is
next, `order` does it; `discover` knows who is out there.
"""
