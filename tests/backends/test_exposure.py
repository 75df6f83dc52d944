"""A model server that the whole network can reach is told from one that only this machine can."""

from __future__ import annotations

import socket

import pytest

from pylon.backends.exposure import is_exposed
from pylon.backends.registry import Registry


@pytest.mark.parametrize("family, address, exposed", [
    (socket.AF_INET, "127.0.0.1", False), (socket.AF_INET, "0.0.0.0", True),
    (socket.AF_INET6, "::1", False), (socket.AF_INET6, "::", True),
    (socket.AF_INET6, "::ffff:127.0.0.1", False)])
def test_what_the_kernel_knows(family, address, exposed):
    with socket.create_server((address, 0), family=family,
                              dualstack_ipv6=family == socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert is_exposed(f"http://127.0.0.1:{port}") == exposed
        assert is_exposed(f"http://localhost:{port}/v1") == exposed
        assert not is_exposed(f"http://192.0.2.1:{port}")
    assert not is_exposed(f"http://127.0.0.1:{port}")


def test_without_proc_nobody_can_tell(tmp_path):
    assert not is_exposed("http://127.0.0.1:80", (tmp_path / "nothing",))


def test_an_exposed_ollama_is_warned_about_once(configured, server, monkeypatch, caplog):
    monkeypatch.setattr("pylon.backends.registry.is_exposed", lambda url: True)
    found = Registry(configured(backend_preference=["ollama"],
                                backends={"ollama": {"url": server.url}}))
    for _ in range(3):
        found.refresh()
    found.close()
    [record] = caplog.records
    assert "OLLAMA_HOST=127.0.0.1" in record.getMessage()
