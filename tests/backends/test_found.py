"""Which backends there are, from the configuration and the environment."""

from __future__ import annotations

import pytest

from pylon import log
from pylon.backends import found
from pylon.errors import ConfigError
from pylon.home import write_private


def build(config, home=None):
    return [(rank, b.id, b.type, b.url) for rank, b in found.build(config, home)]


def test_without_a_word_the_usual_places_are_looked_at(configured):
    assert build(configured()) == [(0, "ollama", "ollama", "http://127.0.0.1:11434"),
                                   (1, "llamacpp", "llamacpp", "http://127.0.0.1:8080")]


def test_preference_orders_and_restricts_what_is_looked_for(configured):
    assert [b[1] for b in build(configured(backend_preference=["llamacpp", "ollama"]))] == \
        ["llamacpp", "ollama"]
    assert [b[1] for b in build(configured(backend_preference=["llamacpp"]))] == ["llamacpp"]


def test_configured_backends_by_name_and_type(configured):
    config = configured(backend_preference=["big", "ollama"], backends={
        "big": {"type": "openai", "url": "http://a/v1"},
        "spare": {"type": "openai", "url": "http://b/v1"},
        "ollama": {"url": "http://c:11434"}})
    assert build(config) == [(0, "big", "openai", "http://a/v1"),
                             (1, "ollama", "ollama", "http://c:11434"),
                             (2, "spare", "openai", "http://b/v1")]


def test_a_disabled_backend_is_not_looked_for(configured):
    config = configured(backends={"ollama": {"enabled": False}})
    assert [b[1] for b in build(config)] == ["llamacpp"]


def test_several_servers_of_one_type_have_one_rank(configured):
    config = configured(backends={
        "one": {"type": "llamacpp", "url": "http://a", "weight": 3},
        "two": {"type": "llamacpp", "url": "http://b"}})
    ranks = {b.id: (rank, b.weight) for rank, b in found.build(config)}
    assert ranks["one"] == (1, 3) and ranks["two"] == (1, 1)


@pytest.mark.parametrize("text, url", [
    ("127.0.0.1:11500", "http://127.0.0.1:11500"), ("box", "http://box:11434"),
    (":11500", "http://127.0.0.1:11500"), ("0.0.0.0", "http://127.0.0.1:11434"),
    ("0.0.0.0:80", "http://127.0.0.1:80"), ("http://box", "http://box"),
    ("https://box/ollama", "https://box/ollama"), ("[::]:5", "http://[::1]:5"),
    ("::1", "http://[::1]:11434"), ("'box:1'", "http://box:1"), (" box ", "http://box:11434"),
    ("http://box:9/", "http://box:9")])
def test_ollama_host_in_all_its_forms(configured, monkeypatch, text, url):
    monkeypatch.setenv("OLLAMA_HOST", text)
    assert build(configured())[0][3] == url


@pytest.mark.parametrize("name", ["OLLAMA_HOST", "OLLAMA_URL", "LLAMACPP_URL"])
@pytest.mark.parametrize("text", ["http://me:secret@box", "http://box:99999999", "ftp://box",
                                  "http://a b", "http://", "http://\x01"])
def test_a_bad_address_in_the_environment_is_told(configured, monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError) as caught:
        build(configured())
    assert "secret" not in str(caught.value) and "environment" in str(caught.value)


def test_environment_and_the_configuration_wins(configured, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere")
    monkeypatch.setenv("OLLAMA_URL", "http://url:1")
    monkeypatch.setenv("LLAMACPP_URL", "http://cpp:2")
    assert [b[3] for b in build(configured())] == ["http://url:1", "http://cpp:2"]
    config = configured(backends={"ollama": {"url": "http://mine:3"}})
    assert build(config)[0][3] == "http://mine:3"


def test_an_openai_backend_needs_a_url(configured):
    with pytest.raises(ConfigError, match="backends.openai needs a url"):
        build(configured(backends={"openai": {}}))


@pytest.fixture
def with_key(configured, home):
    def build_one(key_file):
        config = configured(backends={"big": {"type": "openai", "url": "https://a",
                                              "key_file": str(key_file)}})
        backends = {b.id: b for _, b in found.build(config, home)}
        return backends["big"]._server._headers
    return build_one


def test_a_key_from_a_path_or_from_the_secrets_of_the_home(with_key, home):
    write_private(home.secrets / "big", b"sk-abcdef\n")
    for name in ("big", home.secrets / "big", "secrets/big"):
        assert with_key(name) == {"Authorization": "Bearer sk-abcdef"}


def test_a_key_from_a_systemd_credential(with_key, home, tmp_path, monkeypatch):
    (tmp_path / "big").write_text("sk-credential")
    (tmp_path / "big").chmod(0o440)             # systemd's own modes are not ours to judge
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert with_key("big") == {"Authorization": "Bearer sk-credential"}


@pytest.mark.parametrize("data, mode, words", [
    (b"sk-abcdef", 0o644, "chmod 0600"), (b"", 0o600, "empty"), (b"a b", 0o600, "no API key"),
    (b"sk\r\nX-Evil: 1", 0o600, "no API key"), (b"\xff", 0o600, "no text")])
def test_a_bad_key_file_is_refused_without_showing_it(with_key, home, data, mode, words):
    (home.secrets / "big").write_bytes(data)
    (home.secrets / "big").chmod(mode)
    with pytest.raises(ConfigError, match=words) as caught:
        with_key("big")
    assert "sk-abc" not in str(caught.value) and "Evil" not in str(caught.value)


def test_a_key_file_may_not_be_a_link_or_missing(with_key, home):
    with pytest.raises(ConfigError, match="cannot be read"):
        with_key("big")
    write_private(home.secrets / "real", b"sk-abcdef")
    (home.secrets / "big").symlink_to("real")
    with pytest.raises(ConfigError, match="cannot be read"):
        with_key("big")


def test_a_key_never_gets_into_a_log(with_key, home):
    write_private(home.secrets / "big", b"swordfish-0815")
    with_key("big")
    assert "swordfish" not in log.clean("they said swordfish-0815 to us")


def test_a_key_in_clear_is_warned_about(configured, home, caplog):
    write_private(home.secrets / "big", b"sk-abcdef")
    for url, warned in (("http://127.0.0.1:1", False), ("http://localhost:1", False),
                        ("https://box", False), ("http://box", True)):
        caplog.clear()
        found.build(configured(backends={"big": {"type": "openai", "url": url,
                                                 "key_file": "big"}}), home)
        assert bool(caplog.records) == warned
