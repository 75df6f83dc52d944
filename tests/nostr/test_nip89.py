import json

import pytest
from hypothesis import given, settings, strategies as st

from pylon.errors import InvalidMessage
from pylon.nostr import event as events, nip89
from pylon.nostr.keys import Keys
from pylon.nostr.nip89 import Announcement
from tests.nostr.conftest import NOW

ALICE = Keys(bytes(31) + b"\1")
FACTS = Announcement(d="pylon", name="Nöde", about="words", kinds=[5050, 5001], models=["m", "n"],
                     prices_msats={"m": 2000, "n": 1000}, network="regtest",
                     relays=["wss://a.example"], lud16="a@b.c")


def test_announcement_both_ways():
    event = nip89.build(ALICE, FACTS, NOW)
    events.verify(event)
    assert event.kind == 31990 and event.first("d") == "pylon"
    assert event.all("k") == [["k", "5050"], ["k", "5001"]]
    found = nip89.parse(event)
    for name in ("d", "name", "about", "kinds", "models", "prices_msats", "network", "relays",
                 "lud16", "encryption"):
        assert getattr(found, name) == getattr(FACTS, name), name
    assert (found.price_msats, found.pubkey, found.created_at) == (1000, ALICE.pubkey, NOW)


def test_both_spellings_and_the_names_of_the_first_pylon():
    event = nip89.build(ALICE, FACTS, NOW)
    content = json.loads(event.content)
    assert content["encryptionSupported"] is content["supportsEncryption"] is True
    assert content["nip90Params"]["model"]["values"] == ["m", "n"]
    assert event.first("handler") == "compute_provider"
    assert event.all("price") == [["price", "1000", "per-request", "msats"]]
    assert event.first("network") == "regtest"


def test_a_free_node_says_so():
    facts = Announcement("d", "n", "", [5050], prices_msats={"m": 0}, encryption=False)
    event = nip89.build(ALICE, facts, NOW)
    assert json.loads(event.content)["amount"] == "free"
    assert nip89.parse(event).price_msats == 0 and not nip89.parse(event).encryption


@pytest.mark.parametrize("content", ["", "{}", '{"name":5,"about":[],"amount":-1}',
                                     '{"amount":"1e9","pricesMsats":[]}', '{"name":"\\ud800"}',
                                     '{"pricesMsats":{"m":"x","n":-1,"o":1.5,"p":true}}'])
def test_claims_that_make_no_sense_are_left_out(content):
    found = nip89.parse(ALICE.sign(31990, content, [["d", "x"], ["k", "5050"], ["k", "x"], ["k"]],
                                   NOW))
    assert (found.kinds, found.price_msats, found.prices_msats) == ([5050], None, {})
    found.name.encode()


def test_a_hostile_announcement_is_cut():
    tags = [["d", "x"]] + [["model", "m" * 300]] * 150
    found = nip89.parse(ALICE.sign(31990, json.dumps({"name": "n" * 5000, "about": "a" * 9000}),
                                   tags, NOW))
    assert (len(found.name), len(found.about), len(found.models)) == (100, 1000, 100)
    assert max(map(len, found.models)) == 100


@pytest.mark.parametrize("kind, content, tags", [
    (1, "{}", [["d", "x"]]), (31990, "{}", []), (31990, "[]", [["d", "x"]]),
    (31990, "not json", [["d", "x"]]), (31990, '{"a":1,"a":2}', [["d", "x"]]),
    (31990, "[" * 50_000, [["d", "x"]])])
def test_what_is_no_announcement(kind, content, tags):
    with pytest.raises(InvalidMessage):
        nip89.parse(ALICE.sign(kind, content, tags, NOW))


@settings(max_examples=50, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
                    | st.integers() | st.text(st.characters(exclude_categories=("Cs",)),
                                              max_size=9),
                    lambda x: st.lists(x, max_size=3)
                    | st.dictionaries(st.sampled_from(["name", "about", "amount", "pricesMsats"]),
                                      x, max_size=4)))
def test_any_content_is_read_or_refused(value):
    try:
        nip89.parse(ALICE.sign(31990, json.dumps(value), [["d", "x"]], NOW))
    except InvalidMessage:
        return


def test_heartbeat_and_withdrawal():
    beat = nip89.heartbeat(ALICE, "pylon", NOW, NOW + 300)
    assert (beat.kind, beat.first("d"), beat.expiration()) == (11998, "pylon", NOW + 300)
    gone = nip89.withdraw(ALICE, "pylon", NOW)
    assert (gone.kind, gone.first("a"), gone.first("k")) == (
        5, f"31990:{ALICE.pubkey}:pylon", "31990")
