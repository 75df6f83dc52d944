"""Held against nostr-sdk (Rust) on random input, in both directions."""

import json
import os

import nostr_sdk as sdk
import pytest
from hypothesis import given, settings, strategies as st

from pylon.crypto.pure import N
from pylon.errors import InvalidMessage
from pylon.nostr import (bech32, event as events, filters, nip06, nip13, nip17, nip19, nip47,
                         nip59)
from pylon.nostr.keys import Keys
from tests.nostr.conftest import NOW

SECRETS = st.integers(1, N - 1).map(lambda n: n.to_bytes(32, "big"))
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=80)
# Rust's library reads some tags into types of its own; these names mean nothing to it.
TAGS = st.lists(st.lists(TEXT, max_size=3).map(lambda rest: ["zz", *rest]), max_size=5)
RELAYS = ["wss://relay.example.com", "wss://other.example.org"]
SOME = settings(max_examples=40, deadline=None)


def theirs(secret):
    return sdk.Keys.parse(secret.hex())


@SOME
@given(SECRETS, st.integers(0, 65535), TEXT, TAGS, st.integers(0, 2**40))
def test_their_library_accepts_our_events(secret, kind, content, tags, created_at):
    ours = Keys(secret).sign(kind, content, tags, created_at)
    event = sdk.Event.from_json(ours.to_json())
    assert event.verify()
    assert event.id().to_hex() == ours.id
    assert event.author().to_hex() == ours.pubkey == theirs(secret).public_key().to_hex()
    assert json.loads(event.as_json()) == ours.to_dict()


@SOME
@given(SECRETS, st.integers(0, 65535), TEXT, TAGS, st.integers(0, 2**40))
def test_we_accept_their_events(secret, kind, content, tags, created_at):
    builder = (sdk.EventBuilder(sdk.Kind(kind), content)
               .tags([sdk.Tag.parse(tag) for tag in tags])
               .custom_created_at(sdk.Timestamp.from_secs(created_at)))
    text = builder.finalize(theirs(secret)).as_json()
    event = events.parse(events.load_json(text))
    events.verify(event)
    assert (event.kind, event.content, event.created_at) == (kind, content, created_at)
    assert event.tags == tags


@SOME
@given(SECRETS, st.integers(0, 255), st.integers(1, 255))
def test_both_refuse_a_bent_signature(secret, at, change):
    event = Keys(secret).sign(1, "x", [], NOW).to_dict()
    sig = bytearray.fromhex(event["sig"])
    sig[at % 64] ^= change
    event["sig"] = sig.hex()
    assert not sdk.Event.from_json(json.dumps(event)).verify()
    with pytest.raises(InvalidMessage):
        events.verify(events.parse(event))


@SOME
@given(SECRETS, SECRETS, TEXT)
def test_nip04_both_ways(mine, other, text):
    a, b = Keys(mine), Keys(other)
    there = sdk.nip04_decrypt(theirs(other).secret_key(), theirs(mine).public_key(),
                              a.nip04_encrypt(b.pubkey, text))
    assert there == text
    here = sdk.nip04_encrypt(theirs(other).secret_key(), theirs(mine).public_key(), text)
    assert a.nip04_decrypt(b.pubkey, here) == text


@SOME
@given(SECRETS, SECRETS, TEXT.filter(bool))
def test_nip44_both_ways(mine, other, text):
    a, b = Keys(mine), Keys(other)
    there = sdk.nip44_decrypt(theirs(other).secret_key(), theirs(mine).public_key(),
                              a.nip44_encrypt(b.pubkey, text))
    assert there == text
    here = sdk.nip44_encrypt(theirs(other).secret_key(), theirs(mine).public_key(), text,
                             sdk.Nip44Version.V2)
    assert a.nip44_decrypt(b.pubkey, here) == text


@pytest.mark.parametrize("size", [1, 31, 32, 33, 255, 256, 257, 1000, 65535])
def test_nip44_sizes_both_ways(alice, bob, size):
    text = "x" * size
    secret = sdk.Keys.parse(f"{1:064x}").secret_key()
    public = sdk.PublicKey.parse(bob.pubkey)
    assert sdk.nip44_decrypt(secret, public, bob.nip44_encrypt(alice.pubkey, text)) == text
    if size < 65_000:                   # their library writes less than it reads
        assert bob.nip44_decrypt(alice.pubkey, sdk.nip44_encrypt(
            secret, public, text, sdk.Nip44Version.V2)) == text


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_keys_from_words(account):
    words = nip06.generate_words()
    ours = Keys(nip06.words_to_secret(words, account))
    there = sdk.Keys.from_mnemonic(words, None, account)
    assert ours.pubkey == there.public_key().to_hex()
    assert ours.nsec == there.secret_key().to_bech32()


@SOME
@given(SECRETS)
def test_bech32_of_keys_and_ids(secret):
    ours, there = Keys(secret), theirs(secret)
    assert ours.npub == there.public_key().to_bech32()
    assert ours.nsec == there.secret_key().to_bech32()
    assert nip19.decode_nsec(there.secret_key().to_bech32()) == secret
    assert nip19.decode_pubkey(there.public_key().to_bech32()) == ours.pubkey
    assert nip19.encode_note(secret.hex()) == sdk.EventId.parse(secret.hex()).to_bech32()


def test_bech32_pointers_both_ways(alice):
    id_, relays = os.urandom(32).hex(), [sdk.RelayUrl.parse(url) for url in RELAYS]
    author = sdk.PublicKey.parse(alice.pubkey)
    there = sdk.Nip19Profile(author, relays).to_bech32()
    assert nip19.decode(there) == ("nprofile", nip19.Pointer(alice.pubkey, tuple(RELAYS)))
    assert nip19.decode_pubkey(there) == alice.pubkey
    mine = sdk.Nip19Profile.from_bech32(nip19.encode_nprofile(alice.pubkey, RELAYS))
    assert mine.public_key().to_hex() == alice.pubkey

    there = sdk.Nip19Event(sdk.EventId.parse(id_), author, sdk.Kind(5050), relays).to_bech32()
    assert nip19.decode(there) == (
        "nevent", nip19.Pointer(id_, tuple(RELAYS), alice.pubkey, 5050))
    assert nip19.decode_event_id(there) == id_
    event = sdk.Nip19Event.from_bech32(nip19.encode_nevent(id_, RELAYS, alice.pubkey, 5050))
    assert (event.event_id().to_hex(), event.kind().as_u16()) == (id_, 5050)

    place = sdk.Coordinate(sdk.Kind(31990), author, "pylon")
    there = sdk.Nip19Coordinate(place, relays).to_bech32()
    assert nip19.decode(there) == (
        "naddr", nip19.Pointer("pylon", tuple(RELAYS), alice.pubkey, 31990))
    mine = sdk.Nip19Coordinate.from_bech32(nip19.encode_naddr("pylon", alice.pubkey, 31990, RELAYS))
    assert mine.to_bech32() == there


@SOME
@given(st.binary(max_size=60))
def test_bech32_is_their_bech32(data):
    assert bech32.decode(bech32.encode("test", data)) == ("test", data)


def test_gift_wraps_both_ways(alice, bob):
    for _, wrapped in nip17.build(alice, [bob.pubkey], "hällo", NOW):
        reader = bob if wrapped.first("p") == bob.pubkey else alice
        gift = sdk.UnwrappedGift.from_gift_wrap(
            sdk.NostrSigner.keys(sdk.Keys.parse(reader.nsec)) if hasattr(sdk.NostrSigner, "keys")
            else sdk.Keys.parse(reader.nsec), sdk.Event.from_json(wrapped.to_json()))
        assert gift.sender().to_hex() == alice.pubkey
        assert gift.rumor().content() == "hällo"
    rumor = (sdk.EventBuilder(sdk.Kind(14), "zurück").tags([sdk.Tag.parse(["p", alice.pubkey])])
             .custom_created_at(sdk.Timestamp.from_secs(NOW))
             .finalize_unsigned(sdk.PublicKey.parse(bob.pubkey)))
    gift = sdk.nip59_make_gift_wrap(sdk.Keys.parse(bob.nsec), sdk.PublicKey.parse(alice.pubkey),
                                    rumor)
    event = events.parse(events.load_json(gift.as_json()))
    events.verify(event)
    message = nip17.parse(nip59.unwrap(alice, event))
    assert (message.sender, message.text) == (bob.pubkey, "zurück")


def test_work_counts_alike(alice):
    tags = nip13.mine(alice.pubkey, NOW, 1, [["t", "é"]], "hi", 9)
    event = alice.sign(1, "hi", tags, NOW)
    assert sdk.Event.from_json(event.to_json()).verify()
    assert nip13.committed(event) == 9


@pytest.mark.parametrize("filter", [
    {}, {"kinds": [5050]}, {"kinds": [1]}, {"#p": ["ab" * 32]}, {"#p": ["cd" * 32]},
    {"#t": ["x"], "kinds": [5050]}, {"since": NOW}, {"since": NOW + 1}, {"until": NOW},
    {"until": NOW - 1}, {"authors": [Keys(bytes(31) + b"\1").pubkey]}, {"authors": ["ab" * 32]},
    {"ids": []}, {"ids": ["ab" * 32]}, {"kinds": [5050, 1], "#p": ["cd" * 32, "ab" * 32]},
    {"kinds": [5050], "limit": 0}])
def test_filters_match_alike(alice, filter):
    event = alice.sign(5050, "x", [["p", "ab" * 32], ["t", "x"], ["t"]], NOW)
    there = sdk.Filter.from_json(json.dumps(filter))
    if filter != {"ids": []}:           # their library reads an empty list as no condition
        assert filters.matches(filter, event) == there.match_event(
            sdk.Event.from_json(event.to_json()))
    else:
        assert not filters.matches(filter, event)


def test_wallet_uri_alike(alice):
    secret = "0f" * 32
    text = (f"nostr+walletconnect://{alice.pubkey}?relay=wss%3A%2F%2Frelay.example.com"
            f"&secret={secret}&lud16=a%40b.example")
    ours, there = nip47.parse_uri(text), sdk.NostrWalletConnectUri.parse(text)
    assert ours.wallet_pubkey == there.public_key().to_hex()
    assert ours.secret.hex() == there.secret().to_hex()
    assert ours.lud16 == there.lud16() == "a@b.example"
    assert ours.relays == ("wss://relay.example.com",)
