"""pylon doctor: each probe against the thing itself, in health and in sickness."""

import json
import os
import stat

import pytest

from pylon.cli import outside, probes
from pylon.daemon import lockfile
from pylon.store.database import Database
from tests.fakes.hostile_backend import MODEL, HostileBackend
from tests.parts.relays import LocalRelay


@pytest.fixture(scope="module")
def relay():
    with LocalRelay() as running:
        yield running


@pytest.fixture
def backend():
    with HostileBackend() as running:
        yield running


@pytest.fixture
def healthy(node, relay, backend):
    """A node with a relay and a backend that both answer."""
    node.config.write_text(
        f"relays = ['{relay.url}']\nbackend_preference = ['ollama']\ndefault_model = '{MODEL}'\n"
        f"[backends.ollama]\nurl = '{backend.url}'\n")
    return node


@pytest.fixture
def doctor(pylon):
    def run(*words):
        code, out, err = pylon("doctor", "--json", *words)
        known = json.loads(out)
        known["code"] = code
        return known
    return run


def findings(known, subject):
    return [(f["level"], f["text"]) for f in known["findings"] if f["subject"] == subject]


def test_a_healthy_node(doctor, healthy, relay, backend):
    known = doctor()
    assert known["ok"] and known["identity"]["ok"] and known["code"] == 0
    [told] = known["relays"]
    assert told["ok"] and told["latency_ms"] > 0
    [told] = known["backends"]
    assert told["available"] and told["models"] == [MODEL] and told["endpoint"] == backend.url
    assert any(method == "POST" for method, _, _ in backend.requests), "nothing was completed"
    assert known["wallet"] is None or known["wallet"]["ok"]


def test_it_changes_nothing(doctor, healthy):
    before = {path: path.read_bytes() for path in healthy.root.rglob("*") if path.is_file()}
    doctor()
    assert {path: path.read_bytes() for path in healthy.root.rglob("*")
            if path.is_file()} == before


def test_for_a_person(pylon, healthy):
    code, out, _ = pylon("doctor", "-v")
    assert code == 0 and "ok    identity:" in out and "mend: pylon start" in out
    assert "default model:" in out and out.rstrip().endswith("ready")


def test_strict_is_1_unless_all_is_well(doctor, healthy):
    assert doctor("--strict")["code"] == 1, "the daemon does not run"


def test_no_node_at_all(doctor):
    known = doctor()
    assert known["code"] == 0 and not known["ok"]
    assert findings(known, "identity")[0][0] == "bad"
    assert {f["mend"] for f in known["findings"] if f["subject"] == "identity"} == {"pylon init"}


def test_loose_files_are_found_with_their_mending(doctor, node):
    (node.root / "secrets" / "key").write_text("x")
    (node.root / "secrets" / "key").chmod(0o644)
    [(level, text)] = findings(doctor(), "files")
    assert level == "bad" and "secrets/key" in text
    os.system(f"chmod -R go-rwx '{node.root}'")
    assert findings(doctor(), "files")[0][0] == "ok"
    assert stat.S_IMODE((node.root / "secrets" / "key").stat().st_mode) == 0o600


def test_a_wrong_configuration(doctor, node):
    node.config.write_text("relays = []\nbackend_preference = []\nnam = 1\n")
    assert ("bad", f"{node.config}:3: unknown key nam; did you mean name?") in \
        findings(doctor(), "config")


def test_a_relay_that_is_not_there(doctor, node):
    node.config.write_text("relays = ['ws://127.0.0.1:9']\nbackend_preference = []\n")
    known = doctor()
    [(level, text)] = findings(known, "relay")
    assert level == "bad" and "ws://127.0.0.1:9" in text and known["relays"][0]["ok"] is False


def test_a_relay_that_wants_to_know_who_we_are(doctor, node):
    with LocalRelay(auth="read") as closed:
        node.config.write_text(f"relays = ['{closed.url}']\nbackend_preference = []\n")
        known = doctor()
    assert known["relays"][0]["auth"] == "ok" and known["relays"][0]["ok"]


@pytest.mark.parametrize("sin, told", [("is_no_model_server", ""), ("lists_garbage", ""),
                                       ("never_ends", None), ("says_goodbye", "")])
def test_a_backend_that_sins(doctor, healthy, backend, sin, told):
    backend.sin = sin
    levels = {level for level, _ in findings(doctor(), "backend")}
    assert levels == ({"warn"} if told is not None else {"ok"})


def test_no_backend_is_bad(doctor, node):
    node.config.write_text("relays = []\n[backends.ollama]\nurl = 'http://127.0.0.1:9'\n")
    assert findings(doctor(), "backends")[0][0] == "bad"


def test_a_damaged_store(doctor, node):
    Database(node.database).close()
    data = bytearray(node.database.read_bytes())
    data[4096:12000] = os.urandom(12000 - 4096)
    node.database.write_bytes(data)
    assert findings(doctor(), "store")[0][0] == "bad"


def test_a_full_disk(doctor, node):
    free_mb = os.statvfs(node.root).f_bavail * os.statvfs(node.root).f_frsize // 1_000_000
    node.config.write_text(f"relays = []\nbackend_preference = []\n[store]\npay_free_mb = 1\n"
                           f"quote_free_mb = {min(free_mb + 1000, 1_000_000)}\n")
    [(level, text)] = findings(doctor(), "disk")
    assert level == "bad" and "no new paid work" in text


def test_payments_off_but_required(doctor, node):
    node.config.write_text("relays = []\nbackend_preference = []\nenable_payments = false\n")
    assert findings(doctor(), "wallet") == [
        ("bad", "payments are off but required: every job is refused")]


def test_a_holder_that_does_not_answer(doctor, node):
    with lockfile.hold(node, "pylon backup"):
        [(level, text)] = findings(doctor(), "daemon")
    assert level == "bad" and "pylon backup" in text


def test_a_slow_curve_is_told(doctor, node, monkeypatch):
    monkeypatch.setattr(probes.secp, "backend_name", lambda: "ecdsa")
    [(level, _)] = findings(doctor(), "libsecp256k1")
    assert level == "warn"


def test_h101_a_clock_in_the_past(doctor, node, monkeypatch):
    real = outside.time.time
    monkeypatch.setattr(outside.time, "time", lambda: real() - 50 * 365 * 86400)
    [(level, text)] = findings(doctor(), "clock")
    assert level == "bad" and "before this program was installed" in text


def test_a_clock_that_disagrees_with_the_relays(doctor, node, monkeypatch):
    monkeypatch.setattr(outside, "_skews", lambda urls, ca_file: [400.0, 395.0, -3.0])
    [(level, text)] = findings(doctor(), "clock")
    assert level == "bad" and "395 s ahead" in text


@pytest.mark.parametrize("bwrap, level", [("true", "ok"), ("false", "warn"), (None, "warn")])
def test_bubblewrap(doctor, node, monkeypatch, bwrap, level):
    real = probes.shutil.which
    monkeypatch.setattr(probes.shutil, "which", lambda name: bwrap and real(bwrap))
    assert findings(doctor(), "bubblewrap")[0][0] == level


def test_a_probe_that_breaks_hides_no_other(doctor, node, monkeypatch):
    def broken(patient):
        raise ValueError("oops")
    monkeypatch.setattr(probes, "probes", lambda: [broken, probes._disk])
    known = doctor()
    assert findings(known, "broken")[0][0] == "bad" and findings(known, "disk")
