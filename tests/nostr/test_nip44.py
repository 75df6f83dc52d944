"""NIP-44: the vectors, and B33 of the catalogue."""

import base64
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from pylon.crypto import ciphers
from pylon.errors import IdentityError, InvalidMessage
from pylon.nostr import nip44
from pylon.nostr.keys import Keys

VECTORS = json.loads((Path(__file__).parent / "data" / "nip44.json").read_text())
KEY = bytes(range(32))
GOOD = nip44.encrypt(KEY, "hello")
REFUSAL = r"^cannot decrypt \(NIP-44\)$"


def key_of(sec1, pub2):
    return nip44.conversation_key(Keys(bytes.fromhex(sec1))._shared_x(pub2))


@pytest.mark.parametrize("sec1, pub2, key", VECTORS["conversation_key"])
def test_vector_conversation_key(sec1, pub2, key):
    assert key_of(sec1, pub2).hex() == key


@pytest.mark.parametrize("size, padded", VECTORS["padded"])
def test_vector_padding(size, padded):
    assert nip44.padded_bytes(size) == padded


@pytest.mark.parametrize("row", VECTORS["payload"], ids=lambda row: row["nonce"][:8])
def test_vector_payload(row):
    key = bytes.fromhex(row["key"])
    assert key_of(row["sec1"], Keys(bytes.fromhex(row["sec2"])).pubkey) == key
    assert nip44.encrypt(key, row["text"], bytes.fromhex(row["nonce"])) == row["payload"]
    assert nip44.decrypt(key, row["payload"]) == row["text"]


@pytest.mark.parametrize("sec1, pub2, why", VECTORS["bad_keys"])
def test_vector_bad_keys_and_points_on_the_twist(sec1, pub2, why):
    with pytest.raises((IdentityError, InvalidMessage)):
        key_of(sec1, pub2)


@pytest.mark.parametrize("key, payload, why", VECTORS["bad_payloads"])
def test_vector_bad_payload(key, payload, why):
    with pytest.raises(InvalidMessage, match=REFUSAL):
        nip44.decrypt(bytes.fromhex(key), payload)


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_round_trip(text):
    assert nip44.decrypt(KEY, nip44.encrypt(KEY, text)) == text


@pytest.mark.parametrize("size", [1, 65535])
def test_limits_are_inside(size):
    assert nip44.decrypt(KEY, nip44.encrypt(KEY, "x" * size)) == "x" * size


@pytest.mark.parametrize("text", ["", "x" * 65536, "é" * 32768, "\ud800"])
def test_b33_what_cannot_be_encrypted(text):
    with pytest.raises(InvalidMessage):
        nip44.encrypt(KEY, text)


@pytest.mark.parametrize("payload", [
    "", "#", "#" + GOOD, "#" * 200, GOOD[:-1], GOOD + "=", GOOD + "A", GOOD[:-4], " " + GOOD,
    GOOD + "\n", GOOD[:50] + "!" + GOOD[51:], GOOD[:50] + "\n" + GOOD[51:], GOOD + "é",
    "A" * 87_473, "A" * 87_472, "A" * 132, "A" * 10_000_000, GOOD.replace("A", "-", 1)],
    ids=range(18))
def test_b33_malformed_payloads_fail_alike(payload):
    """RUSTSEC-2026-0216 (short), -0227 (oversize)."""
    with pytest.raises(InvalidMessage, match=REFUSAL):
        nip44.decrypt(KEY, payload)


def test_b33_every_truncation_fails():
    data = base64.b64decode(GOOD)
    for size in range(len(data)):
        with pytest.raises(InvalidMessage, match=REFUSAL):
            nip44.decrypt(KEY, base64.b64encode(data[:size]).decode())


def test_b33_every_flipped_bit_fails():
    data = base64.b64decode(GOOD)
    for at in range(len(data)):
        bent = bytearray(data)
        bent[at] ^= 1
        with pytest.raises(InvalidMessage, match=REFUSAL):
            nip44.decrypt(KEY, base64.b64encode(bytes(bent)).decode())


@pytest.mark.parametrize("padded", [
    b"\0\0" + bytes(32), b"\0\5hello" + bytes(26), b"\0\5hello" + bytes(60), b"\0\x21" + bytes(32),
    b"\xff\xff" + bytes(32), b"\0\2\xff\xfe" + bytes(30), b"\0\0\0\1\0\0" + bytes(64)])
def test_b33_wrong_padding_under_a_right_mac_fails(padded):
    """Zero-length plaintext, lying lengths, no UTF-8, and the long form that we do not take."""
    nonce = bytes(32)
    cipher_key, cipher_nonce, mac_key = nip44.message_keys(KEY, nonce)
    encrypted = ciphers.chacha20(cipher_key, cipher_nonce, padded)
    mac = hmac.digest(mac_key, nonce + encrypted, "sha256")
    with pytest.raises(InvalidMessage, match=REFUSAL):
        nip44.decrypt(KEY, base64.b64encode(b"\2" + nonce + encrypted + mac).decode())


@pytest.mark.parametrize("version", [0, 1, 3, 35])
def test_b33_another_version_fails(version):
    data = bytes([version]) + base64.b64decode(GOOD)[1:]
    with pytest.raises(InvalidMessage, match=REFUSAL):
        nip44.decrypt(KEY, base64.b64encode(data).decode())


def test_the_mac_is_compared_in_constant_time(monkeypatch):
    asked = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: asked.append(1) or a == b)
    nip44.decrypt(KEY, GOOD)
    assert asked


def test_a_fresh_nonce_each_time():
    assert len({nip44.encrypt(KEY, "x") for _ in range(50)}) == 50
