"""Jobs bought from a provider that we did not write (nostr-dvm), free and for money."""

from __future__ import annotations

import json

import pytest

from tests.customer.real import CONFIG, Buyer, running
from tests.parts.dvm import NostrDvm
from tests.parts.relays import LocalRelay
from tests.parts.wallets import LnbitsServer

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

PROMPT = "What is the capital of France?"
LNBITS = """
network = "mainnet"
[wallet]
backend = "lnbits"
[wallet.lnbits]
url = "{url}"
key_file = "{key_file}"
"""


@pytest.fixture(scope="module")
def relay():
    with LocalRelay() as relay:
        yield relay


@pytest.fixture(scope="module")
def free(relay):
    with NostrDvm(relay.url) as dvm:
        yield dvm


def test_a_free_job(relay, free):
    with running(relay.url) as buyer:
        done = buyer.run("job", "submit", PROMPT, "--provider", free.pubkey, "--wait", "-t", "30s")
        assert done.stdout == PROMPT.upper() + "\n"


def test_a_broadcast_job(relay, free):
    with running(relay.url) as buyer:
        order = json.loads(buyer.run("job", "submit", PROMPT, "--wait", "--json", "-t",
                                     "30s").stdout)
        assert (order["state"], order["result"]) == ("completed", PROMPT.upper())


def test_an_encrypted_job(relay, free):
    with running(relay.url) as buyer:
        done = buyer.run("job", "submit", PROMPT, "--provider", free.pubkey, "--encrypt", "--wait",
                         "-t", "30s")
        assert done.stdout == PROMPT.upper() + "\n"


def test_it_is_found_by_its_announcement(relay, free):
    with running(relay.url) as buyer:
        shown = json.loads(buyer.run("providers", "--all", "--json").stdout)["providers"]
        one = next(one for one in shown if one["pubkey"] == free.pubkey)
        assert (one["name"], one["alive"], one["encryption"]) == ("Capitals", True, True)


def test_a_paid_job_over_lnbits(relay, openagents):
    with LnbitsServer() as lnbits:
        seller, purse = lnbits.wallet("seller"), lnbits.wallet("buyer", 1000)
        key_file = openagents / "lnbits.key"
        key_file.write_text(purse.file_text)
        key_file.chmod(0o600)
        config = CONFIG.format(relay=relay.url)
        head, sections = config.split("[customer]")
        settings = LNBITS.format(url=lnbits.url, key_file=key_file).split("[wallet]")
        node = Buyer(openagents, head + settings[0] + "[customer]" + sections + "[wallet]"
                     + settings[1] + "[wallet]".join(settings[2:])).init().start()
        try:
            with NostrDvm(relay.url, 10, lnbits, seller) as dvm:
                done = node.run("job", "submit", PROMPT, "--provider", dvm.pubkey, "--auto-pay",
                                "--max-sats", "10", "-t", "60s")
                assert done.stdout == PROMPT.upper() + "\n"
                assert "paid 10 sats" in done.stderr
                order = node.order(json.loads(node.run("job", "list", "--json").stdout)[
                    "orders"][0]["id"])
                assert order["payment"]["state"] == "succeeded"
                assert node.run("wallet", "audit").returncode == 0
        finally:
            node.stop()
