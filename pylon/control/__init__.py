"""The control socket: how the `pylon` command and the daemon of a home talk to each other."""
