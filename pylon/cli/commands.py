"""Every command, in the order in which `pylon --help` shows them.

A command NAME is the module pylon/cli/NAME.py with `add_arguments(parser)` and `run(args)`, which
gives the exit status. This table imports nothing, so that the overview costs nothing.
"""

COMMANDS = (
    ("init", "make this node's identity and configuration"),
    ("start", "start the daemon"),
    ("stop", "stop the daemon"),
    ("restart", "stop the daemon and start it again"),
    ("reload", "let the daemon read its configuration again"),
    ("status", "how the node is"),
    ("logs", "show the daemon's log"),
    ("config", "show or check the configuration"),
    ("doctor", "probe everything the node needs, and say how to mend what is broken"),
    ("wallet", "what the wallet holds; pay, get paid, audit, connect another"),
    ("owed", "money that arrived for work that was not delivered"),
    ("earnings", "what the node has earned"),
    ("job", "order work from the market, and fetch what came back"),
    ("agent", "agents that live on this node: spawn, fund, watch, approve"),
    ("providers", "who sells what, and what we know of them"),
    ("infer", "one prompt for a local backend"),
    ("compute", "what could think for this node, here and in the market"),
    ("api", "serve an OpenAI-compatible endpoint, from here or from the market"),
    ("explain", "why a job, order, payment or tick went as it did"),
    ("demo", "see a job sold, from a stranger's order to the settled books"),
    ("relay", "a small relay on this machine, to try a node out"),
    ("whoami", "who this node is: npub, key and home"),
)


def overview():
    """The text of `pylon --help`."""
    width = max(len(name) for name, _ in COMMANDS)
    lines = ["usage: pylon [--home DIR] COMMAND [ARGUMENT...]", "",
             "A node of an open market for machine intelligence.", "", "commands:"]
    lines += ["  " + name.ljust(width) + "  " + text for name, text in COMMANDS]
    lines += ["", "options:",
              "  --home DIR   the node's home (default: $OPENAGENTS_HOME/pylon or "
              "~/.openagents/pylon)",
              "  --version    print the version",
              "", "`pylon COMMAND --help` tells more; so does the manual: man pylon"]
    return "\n".join(lines) + "\n"
