"""status, whoami, config, logs: what they print, and with which exit status."""

import json
import socket
import threading

import pytest

from pylon import config, identity, log
from pylon.cli import logs
from pylon.daemon import lockfile, status
from pylon.home import write_private
from tests.cli.conftest import NPUB, OFFLINE, WORDS

PUBKEY = "17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917"


# ---- status -------------------------------------------------------------------------------------

def test_status_without_a_daemon_is_3_and_changes_nothing(pylon, node):
    before = sorted(node.root.rglob("*"))
    code, out, _ = pylon("status")
    assert code == 3 and out.startswith("Daemon:    stopped") and "configured" in out
    assert sorted(node.root.rglob("*")) == before


def test_status_json_without_a_daemon_keeps_the_first_pylons_shape(pylon, node):
    code, out, _ = pylon("status", "--json")
    known = json.loads(out)
    assert code == 3
    for key in ("running", "pid", "uptime_secs", "provider_active", "host_active"):
        assert key in known["daemon"]
    assert known["daemon"]["running"] is False and known["daemon"]["pid"] is None
    assert known["stats"] == {"jobs_completed": 0, "earnings_msats": 0}
    assert known["relays"] == [] and known["default_backend"] is None


def test_status_without_a_home(pylon):
    code, out, _ = pylon("status")
    assert code == 3 and "pylon init" in out


def test_status_with_a_wrong_configuration_still_tells(pylon, node):
    node.config.write_text("nam = 1\n")
    code, out, err = pylon("status")
    assert code == 3 and "unknown key nam" in err and "stopped" in out


def test_status_of_a_holder_that_does_not_answer_is_4(pylon, node):
    with lockfile.hold(node, "pylon backup"):
        code, _, err = pylon("status")
    assert code == 4 and "pylon backup" in err


def test_status_of_another_program_on_the_socket_is_4(pylon, node):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(node.socket))
        server.listen()

        def serve():
            for _ in range(2):
                conn, _ = server.accept()
                conn.recv(1000)
                conn.sendall(b"HTTP/1.1 400 Bad Request\r\n")
                conn.close()
        thread = threading.Thread(target=serve)
        thread.start()
        code, _, err = pylon("status")
        thread.join()
    assert code == 4 and "makes no sense" in err


def test_the_text_needs_no_json_parser():
    """The quick way reads it back by replacing \\n only."""
    text = status.plain('a "quoted" \\ line\nand \x1b[31m control \u202e ünï\n')
    assert json.dumps(text) == '"' + text.replace("\n", "\\n") + '"'


def test_the_text_shows_backends_and_relays():
    known = status.facts_when_down("/home", True, ["wss://r"], ["ollama"])
    known["backend_states"] = [
        {"id": "ollama", "available": True, "models": ["a", "b"]},
        {"id": "vllm", "available": False, "error": "refused"}]
    known["relay_states"] = [
        {"url": "wss://up", "connected": True, "latency_ms": 12.4},
        {"url": "wss://down", "connected": False, "last_error": "no route"}]
    text = status.render(known)
    assert "2 models: a, b" in text and "vllm" in text and "refused" in text
    assert "12 ms" in text and "no route" in text


# ---- whoami -------------------------------------------------------------------------------------

def test_whoami(pylon, node):
    assert pylon("whoami") == (0, f"{NPUB}\n{PUBKEY}\n{node.root}\n", "")
    assert json.loads(pylon("whoami", "--json")[1])["npub"] == NPUB


def test_whoami_of_a_sealed_identity_needs_no_passphrase(pylon, node):
    node.identity.unlink()
    identity.save(node.identity, identity.parse(WORDS), b"secret")
    assert NPUB in pylon("whoami")[1]


def test_whoami_of_nobody_is_78(pylon, home):
    code, _, err = pylon("whoami")
    assert code == 78 and "pylon init" in err


# ---- config -------------------------------------------------------------------------------------

def test_config_show(pylon, node):
    node.config.write_text(OFFLINE + "[provider]\nmax_queue = 7\n")
    code, out, _ = pylon("config", "show")
    assert code == 0 and f"# from: {node.config}" in out and "\nmax_queue = 7\n" in out
    known = json.loads(pylon("config", "show", "--json")[1])
    assert known["provider"]["max_queue"] == 7 and known["relay"]["ping_secs"] == 30


def test_config_default_is_what_init_writes(pylon):
    assert pylon("config", "default")[1].rstrip() == config.render().rstrip()


def test_config_check(pylon, node):
    assert pylon("config", "check") == (0, "the configuration is in order\n", "")
    node.config.write_text("nam = 1\nport = 2\nspark_token = 'canary'\n")
    code, out, _ = pylon("config", "check")
    assert code == 78 and f"{node.config}:1: unknown key nam" in out and f"{node.config}:2" in out
    assert "note: " in out and "canary" not in out
    known = json.loads(pylon("config", "check", "--json")[1])
    assert known["ok"] is False and len(known["problems"]) == 2 and len(known["notes"]) == 1


def test_config_check_of_another_file(pylon, node, tmp_path):
    (tmp_path / "x.toml").write_text("name = 3\n")
    assert pylon("config", "check", "-c", str(tmp_path / "x.toml"))[0] == 78
    assert pylon("config", "check", "-c", str(tmp_path / "missing.toml"))[0] == 78


@pytest.mark.parametrize("old", [".pylon", ".config/pylon", ".config/openagents/pylon"])
def test_config_check_explains_old_places(pylon, node, monkeypatch, tmp_path, old):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / old).mkdir(parents=True)
    assert f"note: {tmp_path / old} is from an older Pylon" in pylon("config", "check")[1]


# ---- logs ---------------------------------------------------------------------------------------

def test_logs_shows_the_end(pylon, node):
    write_private(node.log, b"".join(b"line %d\n" % number for number in range(100)))
    assert pylon("logs", "-n", "2") == (0, "line 98\nline 99\n", "")
    assert pylon("logs")[1].startswith("line 50\n")
    assert pylon("logs", "-n", "0")[1] == ""
    assert pylon("logs", "-n", "100000")[1].count("\n") == 100


def test_logs_of_a_big_file_reads_its_end_only(pylon, node):
    write_private(node.log, b"x" * 50 * 1_000_000 + b"\nlast line\n")
    assert pylon("logs", "-n", "1")[1] == "last line\n"


def test_logs_without_a_log_says_where_to_look(pylon, node):
    code, _, err = pylon("logs")
    assert code == 1 and "journalctl" in err


def test_logs_follows_past_a_rotation(node, monkeypatch):
    monkeypatch.setattr(logs, "POLL_SECS", 0.001)
    handler = log.LogFile(node.log, 1000, 2)
    with open(node.log, "rb") as file:
        lines = logs.follow(node.log, file.fileno())
        node.log.open("ab").write(b"one\n")
        assert next(lines) == b"one\n"
        node.log.rename(node.root / "pylon.log.1")
        handler.reopen()
        node.log.open("ab").write(b"two\n")
        assert next(lines) == b"two\n"
        lines.close()
    handler.close()
