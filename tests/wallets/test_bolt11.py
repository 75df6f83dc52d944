import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon.crypto import secp
from pylon.errors import InvalidMessage
from pylon.nostr import bech32
from pylon.units import MAX_MSATS
from pylon.wallets import bolt11
from tests.wallets.bolt11_examples import (HASH, INVALID, PAYEE, PAYMENT_SECRET, SECRET, VALID)

KEY = bytes.fromhex(SECRET)


@pytest.mark.parametrize("name", VALID)
def test_examples_of_the_specification(name):
    text, expected = VALID[name]
    invoice = bolt11.decode(text)
    want = {"network": "mainnet", "payment_hash": HASH, "payment_secret": PAYMENT_SECRET,
            "payee": PAYEE, "created_at": 1496314658, **expected}
    want.setdefault("expires_at", want["created_at"] + 3600)
    routes = want.pop("routes", [])
    assert [[(h.pubkey, h.short_channel_id, h.fee_base_msats, h.fee_ppm, h.cltv_delta)
             for h in route] for route in invoice.routes] == routes
    assert {key: getattr(invoice, key) for key in want} == want


@pytest.mark.parametrize("name", INVALID)
def test_invalid_examples_of_the_specification(name):
    text, reason = INVALID[name]
    with pytest.raises(InvalidMessage, match=reason):
        bolt11.decode(text)


HEX32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
HOP = st.builds(bolt11.Hop, st.binary(min_size=33, max_size=33).map(bytes.hex),
                st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1),
                st.integers(0, 2**16 - 1))
TEXT = st.text(max_size=150)


@settings(deadline=None)
@given(network=st.sampled_from(sorted(bolt11.PREFIXES.values())),
       amount=st.none() | st.integers(1, MAX_MSATS), payment_hash=HEX32, secret=HEX32,
       description=TEXT, description_hash=st.none() | HEX32,
       metadata=st.none() | st.binary(min_size=1, max_size=50).map(bytes.hex),
       created_at=st.integers(0, 2**35 - 1), expiry=st.integers(0, 2**35 - 1),
       cltv=st.integers(0, 2**35 - 1), odd=st.sets(st.integers(20, 60).map(lambda n: 2 * n + 1)),
       routes=st.lists(st.lists(HOP, min_size=1, max_size=3), max_size=2))
def test_round_trip(network, amount, payment_hash, secret, description, description_hash, metadata,
                    created_at, expiry, cltv, odd, routes):
    features = bolt11.FEATURES | sum(1 << bit for bit in odd)
    description = None if description_hash else description
    text = bolt11.encode(network, amount, payment_hash, description, KEY, secret, created_at,
                         expiry, cltv, description_hash=description_hash, features=features,
                         metadata=metadata, routes=routes)
    assert bolt11.decode(text) == bolt11.decode(text.upper()) == bolt11.Bolt11(
        network, amount, payment_hash, description, description_hash, PAYEE, created_at,
        created_at + expiry, cltv, features, secret, metadata, tuple(map(tuple, routes)))


INVOICE = bolt11.encode("regtest", 21_000, HASH, "a job", KEY, PAYMENT_SECRET, 1_700_000_000, 600)


@settings(deadline=None)
@given(st.integers(0, len(INVOICE) - 1), st.characters(max_codepoint=127))
def test_no_changed_character_is_accepted(place, char):
    changed = INVOICE[:place] + char + INVOICE[place + 1:]
    if changed.lower() != INVOICE:
        with pytest.raises(InvalidMessage):
            bolt11.decode(changed)


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("qpzry9x8gf2tvdw0s3jn54khce6mua7l1", max_size=300))
def test_rubbish_raises_nothing_else(text):
    for candidate in (text, "lnbc1" + text, with_checksum("lnbc", text)):
        with pytest.raises(InvalidMessage):
            bolt11.decode(candidate)


def with_checksum(hrp, text):
    words = [bolt11._TYPES.index(c) for c in text if c in bolt11._TYPES]
    return bech32.encode_words(hrp, words)


@settings(deadline=None)
@given(st.binary(min_size=120, max_size=400))
def test_hostile_fields_under_a_good_checksum_raise_nothing_else(data):
    with pytest.raises(InvalidMessage):
        bolt11.decode(bech32.encode_words("lnbcrt10u", bech32.to_words(data)))


def signed(*fields, hrp="lnbcrt1m", recovery=None, key=KEY):
    """An invoice of any fields at all, with a good signature."""
    words = bolt11._words_of(1_700_000_000, 7)
    for kind, data in fields:
        words += bolt11._field(kind, data)
    signature, recid = secp.sign_recoverable(key, bolt11._digest(hrp, words))
    recid = recid if recovery is None else recovery
    return bech32.encode_words(hrp, words + bech32.to_words(signature + bytes([recid])))


P, S = ("p", bech32.to_words(bytes(32))), ("s", bech32.to_words(bytes(32)))
D, H = ("d", bech32.to_words(b"tea")), ("h", bech32.to_words(bytes(32)))
NODE = bytes.fromhex(PAYEE)


def test_a_minimal_invoice_and_its_defaults():
    invoice = bolt11.decode(signed(P, S, D))
    assert (invoice.min_final_cltv, invoice.features) == (18, 0)
    assert invoice.expires_at == invoice.created_at + 3600


def test_a_named_payee_must_be_the_signer():
    named = ("n", bech32.to_words(NODE))
    assert bolt11.decode(signed(P, S, D, named)).payee == PAYEE
    with pytest.raises(InvalidMessage, match="signature wrong"):
        bolt11.decode(signed(P, S, D, named, key=bytes([7]) * 32))


@pytest.mark.parametrize("fields,reason", [
    ([S, D], "payment hash"), ([P, D], "payment secret"), ([P, S], "description"),
    ([P, S, D, H], "description"), ([P, P, S, D], "two 'p'"), ([P, S, S, D], "two 's'"),
    ([P, S, D, D], "two 'd'"), ([P, S, H, H], "two 'h'"),
    ([P, S, ("d", bech32.to_words(b"\xff\xfe"))], "UTF-8"),
    ([P, S, D, ("x", [31] * 8)], "too large"), ([P, S, D, ("c", [31] * 8)], "too large"),
    ([P, S, D, ("r", bech32.to_words(bytes(50)))], "route"),
    ([P, S, D, ("9", bolt11._words_of(1 << 14))], "feature 14 without feature 8"),
    ([P, S, D, ("9", bolt11._words_of(1 << 8 | 1 << 17))], "feature 16 without feature 14"),
    ([P, S, D, ("f", [1] + [0] * 33)], "fallback"),
    ([("p", [31] * 52), S, D], "filling"),
])
def test_fields_that_make_an_invoice_unpayable(fields, reason):
    with pytest.raises(InvalidMessage, match=reason):
        bolt11.decode(signed(*fields))


@pytest.mark.parametrize("recovery", [4, 27, 255])
def test_a_recovery_number_out_of_range(recovery):
    with pytest.raises(InvalidMessage):
        bolt11.decode(signed(P, S, D, recovery=recovery))


@pytest.mark.parametrize("hrp", ["lnbcrt01m", "lnbcrt0m", "lnbcrtm", "lnbc-1m", "lnbcrt1m1m", "ln",
                                 "lnbcrt10m10", "lnxx1m", "lnbcrt21000001", "bc", "lnbcrt1٣m"])
def test_amounts_and_networks_that_are_none(hrp):
    with pytest.raises(InvalidMessage):
        bolt11.decode(signed(P, S, D, hrp=hrp))


@pytest.mark.parametrize("hrp,msats", [
    ("lnbcrt1", 10**11), ("lnbcrt21000000", MAX_MSATS), ("lnbcrt1m", 10**8), ("lnbcrt1u", 10**5),
    ("lnbcrt10n", 1000), ("lnbcrt10p", 1), ("lnbcrt", None)])
def test_amounts(hrp, msats):
    assert bolt11.decode(signed(P, S, D, hrp=hrp)).amount_msats == msats
    assert bolt11._hrp("regtest", msats) == hrp


@pytest.mark.parametrize("value", [None, b"lnbc", 7, "", "lnbc1" * 2000, "lnbc１"])
def test_what_is_no_text_of_an_invoice(value):
    with pytest.raises(InvalidMessage):
        bolt11.decode(value)


@pytest.mark.parametrize("arguments", [
    {"network": "litecoin"}, {"amount_msats": 0}, {"amount_msats": -5},
    {"amount_msats": MAX_MSATS + 1}, {"payment_hash": "00"}, {"payment_hash": "zz" * 32},
    {"description": "x" * 640}, {"description": None}, {"created_at": 2**35}, {"expiry_secs": -1},
    {"description_hash": HASH}, {"routes": [[bolt11.Hop("00" * 33, 0, -1, 0, 0)]]}])
def test_encode_refuses_what_bolt11_cannot_say(arguments):
    good = {"network": "regtest", "amount_msats": 1, "payment_hash": HASH, "description": "x",
            "secret32": KEY, "payment_secret": PAYMENT_SECRET, "created_at": 0}
    bolt11.encode(**good)
    with pytest.raises(InvalidMessage):
        bolt11.encode(**{**good, **arguments})


def test_the_longest_hostile_invoice_is_read_quickly():
    fields = [("t", [])] * 2200
    started = time.monotonic()
    with pytest.raises(InvalidMessage, match="payment hash"):
        bolt11.decode(signed(*fields))
    assert time.monotonic() - started < 1
