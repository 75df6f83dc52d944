import base64
import os

import pytest
from hypothesis import given, strategies as st

from pylon.crypto import ciphers
from pylon.errors import IdentityError

KEY = bytes(range(32))


def test_chacha20_is_rfc_8439():
    """The key stream of block 0 for an all-zero key and nonce (RFC 8439, A.1 vector 1)."""
    stream = ciphers.chacha20(bytes(32), bytes(12), bytes(32))
    assert stream.hex() == "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    assert ciphers.chacha20(bytes(32), bytes(12), stream) == bytes(32)


def test_aes_cbc_is_nist_sp_800_38a():
    """F.2.5, first block; the padding block follows."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    data = ciphers.aes_cbc_encrypt(key, bytes(range(16)), plain)
    assert data[:16].hex() == "f58c4c04d6e5f1ba779eabfb5f7bfbd6" and len(data) == 32
    assert ciphers.aes_cbc_decrypt(key, bytes(range(16)), data) == plain


@given(st.binary(max_size=100))
def test_aes_cbc_round_trip(plain):
    data = ciphers.aes_cbc_encrypt(KEY, bytes(16), plain)
    assert ciphers.aes_cbc_decrypt(KEY, bytes(16), data) == plain


@pytest.mark.parametrize("iv, data", [(16, 0), (16, 15), (16, 17), (15, 16), (3, 16), (17, 16)])
def test_aes_cbc_refuses_other_sizes(iv, data):
    with pytest.raises(ValueError):
        ciphers.aes_cbc_decrypt(KEY, bytes(iv), bytes(data))


@given(st.binary(max_size=60))
def test_base64_round_trip(data):
    assert ciphers.unbase64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize("text", ["A", "AA", "AA=", "AB==", "AAA", "AAB=", "AAAA=", "AAAA====",
                                  "AA==AA==", "A A=", "AAAA\n", "-_==", "AAÄA", "\u0661AAA"])
def test_base64_has_one_form(text):
    with pytest.raises(ValueError):
        ciphers.unbase64(text)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_box(data):
    with pytest.raises(IdentityError):
        ciphers.unseal(b"x", data)


def test_a_sealed_box_opens_with_its_passphrase_alone():
    box = ciphers.seal("pässword".encode(), b"twelve words")
    assert ciphers.is_sealed(box) and b"twelve" not in box
    assert ciphers.unseal("pässword".encode(), box) == b"twelve words"
    for wrong in (b"", b"password", "pässword ".encode()):
        with pytest.raises(IdentityError, match="wrong passphrase"):
            ciphers.unseal(wrong, box)
    assert box != ciphers.seal("pässword".encode(), b"twelve words")


def test_every_part_of_a_box_is_protected(monkeypatch):
    monkeypatch.setattr(ciphers, "_LOG_N", 4)           # 16 rounds: this is about the header
    box = ciphers.seal(b"p", b"secret")
    for at in range(len(box)):
        bent = bytearray(box)
        bent[at] ^= 1
        with pytest.raises(IdentityError):
            ciphers.unseal(b"p", bytes(bent))
    for size in range(len(box)):
        with pytest.raises(IdentityError):
            ciphers.unseal(b"p", box[:size])


@pytest.mark.parametrize("log_n, r, p", [(19, 8, 1), (63, 8, 1), (15, 17, 1), (15, 8, 5),
                                         (0, 8, 1), (15, 0, 1), (15, 8, 0)])
def test_a_planted_box_cannot_ask_for_all_memory(log_n, r, p, monkeypatch):
    monkeypatch.setattr(ciphers, "_stretch", lambda *a: pytest.fail("scrypt was started"))
    box = ciphers._HEADER.pack(b"PYLONBOX1", log_n, r, p, os.urandom(16), os.urandom(12))
    with pytest.raises(IdentityError, match="damaged"):
        ciphers.unseal(b"p", box + bytes(40))
