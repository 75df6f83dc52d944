"""The front door: quick ways, help, and how failures are told."""

import json
import os
import subprocess
import sys
import threading

import pytest

from pylon import __version__
from pylon.cli import commands, parser
from pylon.control.server import Server
from pylon.errors import PylonError
from pylon.home import SYSTEM_OPENAGENTS, Home
from tests.node import LAUNCHER, ROOT

HEAVY = ("json", "socket", "argparse", "re", "pathlib", "typing", "enum", "requests", "websocket",
         "sqlite3", "logging", "threading", "subprocess", "pylon.errors", "pylon.home",
         "pylon.cli.parser")
SHOW_MODULES = ("import sys; sys.argv[0] = 'pylon'; from pylon.cli import main; status = main(); "
                "print(status, *sys.modules, file=sys.stderr)")


def modules_after(*words, **env):
    """Run in a fresh interpreter without site's own imports: (status, stdout, modules)."""
    done = subprocess.run([sys.executable, "-c", SHOW_MODULES, *words], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, **env}, timeout=30)
    status, *modules = done.stderr.split()
    return int(status), done.stdout, set(modules)


def already_there():
    """What the interpreter brings along by itself."""
    code = "import sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              timeout=30).stdout.split())


@pytest.fixture
def daemon(home):
    """What a daemon answers to `status`, without a daemon."""
    server = Server(home, {"StatusText": lambda args, peer: "Daemon:    running\nUptime:    1s\n",
                           "StatusJson": lambda args, peer: {"daemon": {"running": True}}})
    server.start()
    yield server
    server.stop()


def test_g6_status_of_a_running_daemon_imports_nothing(daemon, openagents):
    status, out, modules = modules_after("status")
    assert (status, out) == (0, "Daemon:    running\nUptime:    1s\n")
    new = modules - already_there()
    assert not new & set(HEAVY), new
    assert new <= {"pylon", "pylon.cli", "_socket"}, new


def test_g6_status_json_too(daemon, home):
    status, out, modules = modules_after("--home", str(home.root), "status", "--json",
                                         OPENAGENTS_HOME="/nonexistent")
    assert status == 0 and json.loads(out) == {"daemon": {"running": True}}
    assert modules - already_there() <= {"pylon", "pylon.cli", "_socket"}


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"]])
def test_g6_help_and_version_are_light(words, openagents):
    status, out, modules = modules_after(*words)
    assert status == 0 and out
    assert not (modules - already_there()) & set(HEAVY)


def test_a_slow_daemon_does_not_hang_status(home, pylon, monkeypatch):
    import pylon.cli as front               # the package, not the fixture
    monkeypatch.setattr(front, "_TIMEOUT_SECS", 0.2)
    hold = threading.Event()
    server = Server(home, {"StatusText": lambda a, p: hold.wait(10),
                           "StatusJson": lambda a, p: {"daemon": {"running": True}}})
    server.start()
    try:
        status, out, err = pylon("status", "--json")
        assert status == 0
    finally:
        hold.set()
        server.stop()


def test_help_names_every_command_and_every_command_helps(pylon):
    status, out, _ = pylon("--help")
    assert status == 0
    for name, text in commands.COMMANDS:
        assert f"  {name} " in out and text in out
        assert parser.build(name).format_help().startswith(f"usage: pylon {name}")


def test_version(pylon):
    assert pylon("--version") == (0, f"pylon {__version__}\n", "")
    assert f"pylon {__version__}" in subprocess.run(
        [sys.executable, str(LAUNCHER), "--home", "/x", "--version"], capture_output=True,
        text=True, timeout=30).stdout


def test_no_command_is_a_usage_error(pylon):
    status, out, _ = pylon()
    assert status == 2 and out.startswith("usage: pylon")


@pytest.mark.parametrize("words, told", [
    (["statsu"], "did you mean: pylon status"), (["xyzzy"], "see: pylon --help"),
    (["--hom", "x", "status"], "unknown option --hom"),
    (["stop", "-t", "soon"], "is not a duration"),
    (["stop", "-t", "2d"], "at most"), (["logs", "-n", "-1"], ""), (["logs", "-n", "many"], "")])
def test_nonsense_is_2_and_told(pylon, words, told):
    try:
        status, _, err = pylon(*words)
    except SystemExit as end:               # argparse's own way
        status, err = end.code, told
    assert status == 2 and told in err


@pytest.mark.parametrize("error, status, told", [
    (PylonError("the reason"), 1, "pylon: the reason\n"),
    (ValueError("oops"), 1, "pylon: internal error: ValueError: oops"),
    (KeyboardInterrupt(), 130, ""), (BrokenPipeError(), 141, "")])
def test_failures_are_one_line(pylon, monkeypatch, error, status, told):
    from pylon.cli import whoami            # the module, not the fixture

    def fail(args):
        raise error
    monkeypatch.setattr(whoami, "run", fail)
    if isinstance(error, BrokenPipeError):
        monkeypatch.setattr(os, "dup2", lambda a, b: None)
    got, out, err = pylon("whoami")
    assert got == status and err.startswith(told) and "Traceback" not in err


def test_home_option_before_and_after_the_command(pylon, node):
    for words in (["--home", str(node.root), "whoami"], ["whoami", "--home", str(node.root)],
                  [f"--home={node.root}", "whoami"]):
        assert pylon(*words)[0] == 0


def test_who_has_no_home_talks_to_the_systems_node(monkeypatch, tmp_path, home):
    monkeypatch.delenv("OPENAGENTS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parser.find_home(None).root == tmp_path / ".openagents" / "pylon"
    monkeypatch.setattr(parser, "SYSTEM_OPENAGENTS", home.root.parent)
    assert parser.find_home(None).root == home.root
    assert parser.find_home(None, own=True).root == tmp_path / ".openagents" / "pylon"
    assert parser.find_home("/x").root == Home("/x").root
    Home(tmp_path / ".openagents" / "pylon").create()
    assert parser.find_home(None).root == tmp_path / ".openagents" / "pylon"
    assert SYSTEM_OPENAGENTS.is_absolute()


def test_a_reader_that_leaves_is_no_traceback(node):
    command = f"{sys.executable} {LAUNCHER} --home {node.root} config default | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("# Configuration") and done.stderr == ""


@pytest.mark.parametrize("words, said", [
    (["job"], "job: error: say which: submit, "),
    (["init", "extra"], "unrecognized arguments: extra; see: pylon init --help"),
    (["agent", "spawn"], "required: -n/--name; see: pylon agent spawn --help")],
    ids=["no action", "too much", "too little"])
def test_a_wrong_command_line_says_where_to_read_on(pylon, capfd, words, said):
    with pytest.raises(SystemExit) as ended:
        pylon(*words)
    assert ended.value.code == 2 and said in capfd.readouterr().err
