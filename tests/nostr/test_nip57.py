"""E72 of the catalogue: what makes a zap receipt worthless."""

import hashlib
from dataclasses import dataclass

import pytest

from pylon.errors import InvalidMessage
from pylon.nostr import event as events, nip57
from pylon.nostr.keys import Keys
from tests.nostr.conftest import NOW

SENDER, RECIPIENT, SERVER, EVE = (Keys(bytes(31) + bytes([n])) for n in (1, 2, 3, 4))
LNURL = "lnurl1dp68gurn8ghj7um9wfmxjcm99e5k7telwy7nxenrxvmrgdtzxsenjcm98pjnwxq96s9"


@dataclass
class Invoice:
    amount_msats: int | None
    payment_hash: str
    description_hash: str | None


def zap(**changes):
    """A receipt and its invoice; every part can be spoiled."""
    order = changes.get("order") or nip57.build(
        changes.get("sender", SENDER), changes.get("zapped", RECIPIENT.pubkey), ["wss://r"],
        changes.get("ordered", 21000), NOW, "nice", changes.get("event_id"), None,
        changes.get("lnurl", LNURL))
    description = changes.get("description", order.to_json())
    tags = [["p", changes.get("receipt_to", RECIPIENT.pubkey)], ["bolt11", "lnbc1"],
            ["description", description], ["P", SENDER.pubkey]]
    if changes.get("event_id"):
        tags.append(["e", changes.get("receipt_event", changes["event_id"])])
    tags += changes.get("tags", [])
    receipt = changes.get("server", SERVER).sign(changes.get("kind", 9735), "", tags, NOW)
    hashed = changes.get("hashed", hashlib.sha256(order.to_json().encode()).hexdigest())
    return receipt, Invoice(changes.get("invoiced", 21000), "cd" * 32, hashed)


def check(**changes):
    receipt, invoice = zap(**changes)
    return nip57.check_receipt(receipt, RECIPIENT.pubkey, SERVER.pubkey, lambda text: invoice,
                               LNURL)


def test_an_honest_receipt():
    found = check(event_id="ab" * 32)
    assert (found.sender, found.recipient, found.amount_msats, found.payment_hash, found.event_id,
            found.comment) == (SENDER.pubkey, RECIPIENT.pubkey, 21000, "cd" * 32, "ab" * 32, "nice")
    assert check().event_id is None


def test_the_order_for_the_lnurl_server():
    order = nip57.build(SENDER, RECIPIENT.pubkey, ["wss://a", "wss://b"], 5000, NOW, "hi",
                        "ab" * 32, 1, LNURL)
    events.verify(order)
    assert order.kind == 9734 and order.all("relays") == [["relays", "wss://a", "wss://b"]]
    assert (order.first("amount"), order.first("k"), order.first("lnurl")) == ("5000", "1", LNURL)


def test_replay_is_the_same_zap_with_the_same_hash():
    receipt, invoice = zap()
    zaps = [nip57.check_receipt(receipt, RECIPIENT.pubkey, SERVER.pubkey, lambda text: invoice)
            for _ in range(2)]
    assert zaps[0] == zaps[1], "whoever books it knows it by payment_hash"


UNSIGNED = nip57.build(SENDER, RECIPIENT.pubkey, ["wss://r"], 21000, NOW).to_dict()
SPOILT = {
    "wrong nostrPubkey": {"server": EVE},
    "another kind": {"kind": 1},
    "amount of the invoice differs": {"invoiced": 20000},
    "invoice without an amount": {"invoiced": None},
    "amount of zero": {"ordered": 0, "invoiced": 0},
    "description altered": {"description": nip57.build(
        SENDER, RECIPIENT.pubkey, ["wss://r"], 21000, NOW, "other words").to_json()},
    "description not of the invoice": {"hashed": "ab" * 32},
    "invoice without the hash": {"hashed": None},
    "self-signed order": {"sender": RECIPIENT},
    "order to another": {"zapped": EVE.pubkey},
    "receipt to another": {"receipt_to": EVE.pubkey},
    "receipt to two": {"tags": [["p", EVE.pubkey]]},
    "receipt about another event": {"event_id": "ab" * 32, "receipt_event": "cd" * 32},
    "another lnurl": {"lnurl": "lnurl1other"},
    "no json": {"description": "x"}, "no description": {"description": ""},
    "order with a bad signature": {"description": str({**UNSIGNED, "sig": "0" * 128})
                                   .replace("'", '"')},
    "order of another kind": {"order": SENDER.sign(1, "", [["p", RECIPIENT.pubkey],
                                                           ["amount", "21000"]], NOW)},
    "order without an amount": {"order": SENDER.sign(9734, "", [["p", RECIPIENT.pubkey]], NOW)},
    "order with an odd amount": {"order": SENDER.sign(
        9734, "", [["p", RECIPIENT.pubkey], ["amount", "21_000"]], NOW)},
    "order to two": {"order": SENDER.sign(
        9734, "", [["p", RECIPIENT.pubkey], ["p", EVE.pubkey], ["amount", "21000"]], NOW)},
}


@pytest.mark.parametrize("why", SPOILT)
def test_e72_a_spoilt_receipt_is_refused(why):
    with pytest.raises(InvalidMessage):
        check(**SPOILT[why])


def test_e72_a_receipt_without_an_invoice():
    receipt = SERVER.sign(9735, "", [["p", RECIPIENT.pubkey]], NOW)
    with pytest.raises(InvalidMessage):
        nip57.check_receipt(receipt, RECIPIENT.pubkey, SERVER.pubkey, lambda text: None)


def test_e72_an_invoice_that_cannot_be_read():
    def decode(text):
        raise InvalidMessage("no invoice")
    with pytest.raises(InvalidMessage):
        nip57.check_receipt(zap()[0], RECIPIENT.pubkey, SERVER.pubkey, decode)
