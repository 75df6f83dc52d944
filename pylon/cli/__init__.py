"""The `pylon` command.

`main` answers what people and monitors ask every minute - `status` of a running daemon, `--help`,
`--version` - without importing anything but sys, os and _socket: the daemon renders the text.
Everything else goes to `parser`.
"""

import os
import sys

_ASKED = {(): b'"StatusText"\n', ("--json",): b'"StatusJson"\n'}
_TIMEOUT_SECS = 5.0


def main(argv=None):
    """Run one command; gives its exit status."""
    args = sys.argv[1:] if argv is None else list(argv)
    if args in (["--help"], ["-h"], ["help"]):
        from pylon.cli import commands      # late: light, but not needed by status
        return _print(commands.overview())
    if args == ["--version"]:
        from pylon import __version__       # late: not needed by status
        return _print("pylon " + __version__ + "\n")
    answer = _ask_for_status(args)
    if answer is not None:
        return _print(answer)
    from pylon.cli import parser            # late: argparse costs as much as all of the above
    return parser.run(args)


def _ask_for_status(args):
    """The text of a running daemon, or None: then the long way finds out what is the matter."""
    place = None
    if len(args) > 2 and args[0] == "--home":
        place, args = args[1], args[2:]
    if not args or args[0] != "status":
        return None
    command = _ASKED.get(tuple(args[1:]))
    base = place or os.path.join(os.environ.get("OPENAGENTS_HOME")
                                 or os.path.join(os.path.expanduser("~"), ".openagents"), "pylon")
    if command is None or not base.startswith("/"):
        return None
    try:
        return _unwrap(_talk(base + "/control.sock", command))
    except (OSError, ValueError):
        return None


def _talk(path, command):
    import _socket                          # late: two of three commands never need it
    conn = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        conn.settimeout(_TIMEOUT_SECS)
        conn.connect(path)
        conn.send(command)
        chunks: list = []
        while not chunks or not chunks[-1].endswith(b"\n"):
            chunks.append(conn.recv(65536))
            if not chunks[-1]:
                raise ValueError("cut off")
        return b"".join(chunks).decode()
    finally:
        conn.close()


def _unwrap(line):
    """The text in {"StatusText":"..."}, which holds no escape but \\n, or the object in
    {"StatusJson":{...}}."""
    if line.startswith('{"StatusText":"'):
        return line[len('{"StatusText":"'):-3].replace("\\n", "\n")
    if line.startswith('{"StatusJson":'):
        return line[len('{"StatusJson":'):-2] + "\n"
    raise ValueError("another answer")


def _print(text):
    try:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # so that the exit flushes in peace
        return 141
    except OSError:
        return 1
    return 0
