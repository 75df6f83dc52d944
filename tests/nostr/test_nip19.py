import pytest
from hypothesis import given, strategies as st

from pylon.errors import InvalidMessage, UsageError
from pylon.nostr import bech32, nip19
from pylon.nostr.nip19 import Pointer

PUBKEY = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e"
NPUB = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
NSEC = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
SECRET = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa"
NPROFILE = ("nprofile1qqsrhuxx8l9ex335q7he0f09aej04zpazpl0ne2cgukyawd24mayt8gpp4mhxue69uhhytnc9e3k7"
            "mgpz4mhxue69uhkg6nzv9ejuumpv34kytnrdaksjlyr9p")
AUTHOR = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d"


def test_the_examples_of_the_nip():
    assert nip19.encode_npub(PUBKEY) == NPUB and nip19.decode(NPUB) == ("npub", PUBKEY)
    assert nip19.encode_nsec(bytes.fromhex(SECRET)) == NSEC
    assert nip19.decode(NSEC) == ("nsec", bytes.fromhex(SECRET))
    assert nip19.decode_nsec(NSEC).hex() == SECRET
    relays = ("wss://r.x.com", "wss://djbas.sadkb.com")
    assert nip19.decode(NPROFILE) == ("nprofile", Pointer(AUTHOR, relays))
    assert nip19.encode_nprofile(AUTHOR, relays) == NPROFILE


@given(st.binary(min_size=32, max_size=32), st.lists(st.sampled_from(["wss://a.b", "ws://c"])),
       st.none() | st.just(PUBKEY), st.none() | st.integers(0, 65535))
def test_round_trips(data, relays, author, kind):
    id_ = data.hex()
    assert nip19.decode(nip19.encode_note(id_)) == ("note", id_)
    assert nip19.decode(nip19.encode_nevent(id_, relays, author, kind)) == (
        "nevent", Pointer(id_, tuple(relays), author, kind))
    assert nip19.decode(nip19.encode_naddr("d é", PUBKEY, kind or 0, relays)) == (
        "naddr", Pointer("d é", tuple(relays), PUBKEY, kind or 0))


@pytest.mark.parametrize("text", [NPUB, NPROFILE, f"nostr:{NPUB}", NPUB.upper(),
                                  f"  {NPUB}\n", PUBKEY, PUBKEY.upper()])
def test_a_person_may_write_a_key_in_many_ways(text):
    wanted = AUTHOR if text == NPROFILE else PUBKEY
    assert nip19.decode_pubkey(text) == wanted


@pytest.mark.parametrize("text", [
    NSEC, nip19.encode_note(PUBKEY), "", "npub1x", NPUB[:-1], NPUB + "q",
    NPUB[:10] + "b" + NPUB[11:], PUBKEY[:-1], "alice@example.com"])
def test_what_is_no_key_is_said_without_repeating_it(text):
    with pytest.raises(UsageError) as err:
        nip19.decode_pubkey(text)
    assert not text or text not in str(err.value)


def test_event_ids():
    assert nip19.decode_event_id(nip19.encode_note(PUBKEY)) == PUBKEY
    assert nip19.decode_event_id(nip19.encode_nevent(PUBKEY)) == PUBKEY
    assert nip19.decode_event_id(PUBKEY) == PUBKEY
    with pytest.raises(UsageError):
        nip19.decode_event_id(NPUB)


@pytest.mark.parametrize("text", [NPUB, "nsec1", "", SECRET])
def test_what_is_no_nsec(text):
    with pytest.raises(InvalidMessage):
        nip19.decode_nsec(text)


@pytest.mark.parametrize("type_, data", [
    ("npub", bytes(31)), ("npub", bytes(33)), ("note", b""), ("nprofile", b""),
    ("nprofile", b"\0"), ("nprofile", b"\0\x20" + bytes(31)), ("nprofile", b"\0\x1f" + bytes(31)),
    ("nprofile", b"\1\1a"), ("nevent", b"\0\x20" + bytes(32) + b"\3\2\0\0"),
    ("nevent", b"\0\x20" + bytes(32) + b"\2\1\0"), ("naddr", b"\0\1d"),
    ("naddr", b"\0\1\xff" + b"\2\x20" + bytes(32) + b"\3\4" + bytes(4)),
    ("nprofile", b"\0\x20" + bytes(32) + b"\1\1\xff"), ("nwhat", bytes(32)), ("lnbc", b"x")])
def test_malformed_contents(type_, data):
    with pytest.raises(InvalidMessage):
        nip19.decode(bech32.encode(type_, data))


def test_unknown_parts_are_skipped():
    data = b"\x09\3abc" + b"\0\x20" + bytes.fromhex(PUBKEY) + b"\xff\0"
    assert nip19.decode(bech32.encode("nprofile", data)) == ("nprofile", Pointer(PUBKEY))


@pytest.mark.parametrize("text", [
    "A12UEL5L", "a12uel5l",
    "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
    "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", "?1ezyfcl"])
def test_bip173_valid(text):
    prefix, data = bech32.decode_words(text, 90)
    assert bech32.encode_words(prefix, data) == text.lower()


@pytest.mark.parametrize("text", [
    "\x201nwldj5", "\x7f1axkwrx", "\x801eym55h", "pzry9x0s0muk", "1pzry9x0s0muk", "x1b4n0q5v",
    "li1dgmt3", "de1lg7wt\xff", "A1G7SGD8", "10a06t8", "1qzzfhee", "aB1xxxxx", "A12uEL5L", "",
    "1", "a1", "x" * 91])
def test_bip173_invalid(text):
    with pytest.raises(InvalidMessage):
        bech32.decode_words(text, 90)


@given(st.integers(0, 62), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_one_wrong_letter_is_always_found(at, letter):
    bent = NPUB[:at] + letter + NPUB[at + 1:]
    if bent != NPUB:
        with pytest.raises(InvalidMessage):
            nip19.decode(bent)


@pytest.mark.parametrize("words", [[0] * 3, [1], [0, 31], [0] * 6])
def test_filling_bits_must_be_zeros_and_few(words):
    with pytest.raises(InvalidMessage):
        bech32.to_bytes(words)
