"""pylon providers: who is there, at which price, and why a score is what it is."""

from __future__ import annotations

import json

import pytest

from tests.customer.real import running
from tests.fakes.dishonest_provider import DishonestProvider
from tests.parts.relays import LocalRelay


@pytest.fixture(scope="module")
def world():
    with LocalRelay() as relay, running(relay.url) as buyer:
        provider = DishonestProvider(relay.url, buyer.openagents, "seller")
        provider.announce()
        yield buyer, provider
        provider.close()


def test_providers_shows_who_lives(world):
    buyer, provider = world
    out = buyer.run("providers").stdout
    assert provider.npub in out and "2 sats" in out and "alive" in out and "0 of 0" in out


def test_providers_verbose_explains_the_score(world):
    buyer, _ = world
    out = buyer.run("providers", "-v").stdout
    assert "its heartbeat is fresh" in out and "nothing delivered to us yet" in out


def test_providers_json_has_claims_history_and_reasons(world):
    buyer, provider = world
    buyer.run("job", "submit", "x", "--provider", provider.npub, "--auto-pay", "-t", "10s")
    answer = json.loads(buyer.run("providers", "--json").stdout)
    [one] = answer["providers"]
    assert (answer["kind"], one["npub"], one["price_msats"]) == (5050, provider.npub, 2000)
    assert one["history"]["delivered"] == 1 and one["history"]["paid_msats"] == 2000
    assert one["score"] == sum(reason["points"] for reason in one["reasons"])


def test_providers_of_a_kind_that_nobody_serves(world):
    buyer, _ = world
    assert "nobody is there" in buyer.run("providers", "--kind", "5001").stdout


def test_providers_bad_kind(world):
    buyer, _ = world
    assert buyer.run("providers", "--kind", "x", check=False).returncode == 2


def test_providers_needs_the_daemon(pylon, node):
    code, _, err = pylon("--home", str(node.root), "providers")
    assert code == 3 and "pylon start" in err
