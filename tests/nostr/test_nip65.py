import pytest

from pylon.errors import InvalidMessage
from pylon.nostr import nip65
from tests.nostr.conftest import NOW

RELAYS = ["wss://a.example", "ws://b.example:7000/x"]


def test_relay_list_both_ways(alice):
    event = nip65.build_relay_list(alice, RELAYS, NOW)
    assert (event.kind, event.all("r")) == (10002, [["r", url] for url in RELAYS])
    assert nip65.parse_relay_list(event) == nip65.RelayList(tuple(RELAYS), tuple(RELAYS))


def test_read_and_write_are_told_apart(alice):
    event = alice.sign(10002, "", [["r", "wss://r", "read"], ["r", "wss://w", "write"],
                                   ["r", "wss://both"], ["r", "wss://odd", "what"], ["r"]], NOW)
    assert nip65.parse_relay_list(event) == nip65.RelayList(
        ("wss://r", "wss://both", "wss://odd"), ("wss://w", "wss://both", "wss://odd"))


def test_dm_relays_both_ways(alice):
    event = nip65.build_dm_relays(alice, RELAYS, NOW)
    assert event.kind == 10050
    assert nip65.parse_dm_relays(event) == tuple(RELAYS)


def test_other_kinds_are_refused(alice):
    event = alice.sign(1, "", [["r", "wss://x"]], NOW)
    for parse in (nip65.parse_relay_list, nip65.parse_dm_relays):
        with pytest.raises(InvalidMessage):
            parse(event)


def test_a_hostile_list_is_cut(alice):
    event = alice.sign(10002, "", [["r", f"wss://r{n}.example"] for n in range(200)], NOW)
    assert len(nip65.parse_relay_list(event).read) == 32


@pytest.mark.parametrize("url", ["", "http://x", "javascript:x", "wss://a b", "wss://\x1b[31m",
                                 "wss://é.example", "wss://" + "x" * 251, "relay.example"])
def test_what_is_no_address(url):
    assert nip65.usable([url]) == ()
