"""Backends of all three types against a server that sins, with limits short enough to wait for."""

from __future__ import annotations

import pytest

from pylon import config as configuration
from pylon.backends.backend import Limits, Prompt
from pylon.backends.found import TYPES
from tests.fakes.hostile_backend import HostileBackend

SHORT = Limits(first_token_secs=0.5, between_tokens_secs=0.3, total_secs=5, output_bytes=65536)
FRANCE = "The capital of France is Paris."


def prompt(text="What is the capital of France?", **options):
    return Prompt([{"role": "user", "content": text}], **options)


@pytest.fixture
def server():
    """An honest server that can be told to sin."""
    with HostileBackend() as backend:
        yield backend


@pytest.fixture(params=["ollama", "llamacpp", "openai"])
def dialect(request):
    return request.param


@pytest.fixture
def make():
    """make(type, url or server, limits=..., **options): a backend, hung up at the end."""
    made = []

    def build(type_, server, limits=SHORT, **options):
        backend = TYPES[type_](type_, getattr(server, "url", server), limits, **options)
        made.append(backend)
        return backend

    yield build
    for backend in made:
        backend.close()


@pytest.fixture
def backend(make, dialect, server):
    """One backend of each type, looking at `server`."""
    return make(dialect, server)


@pytest.fixture
def configured():
    """configured({...}): a Config with these values over the defaults."""
    def build(**values):
        return configuration.from_values({"default_model": "tiny:1b", **values})
    return build
