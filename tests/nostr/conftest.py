import pytest

from pylon.nostr.keys import Keys

NOW = 1_780_000_000


@pytest.fixture(scope="session")
def alice():
    return Keys(bytes(31) + b"\1")


@pytest.fixture(scope="session")
def bob():
    return Keys(bytes(31) + b"\2")


@pytest.fixture(scope="session")
def eve():
    return Keys(bytes(31) + b"\3")
