"""Both back ends side by side: the vectors of BIP-340, and each against the other."""

import csv
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from pylon.crypto.pure import N, P
from pylon.errors import InvalidMessage

with (Path(__file__).parent / "data" / "bip340.csv").open() as file:
    VECTORS = list(csv.DictReader(file))
GENERATOR_X = bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
SECRETS = st.integers(1, N - 1).map(lambda n: n.to_bytes(32, "big"))
HASHES = st.binary(min_size=32, max_size=32)


def test_there_are_nineteen_vectors():
    assert [row["index"] for row in VECTORS] == [str(i) for i in range(19)]


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: row["index"])
def test_bip340_vector_verifies_as_it_says(backend, row):
    key, msg, sig = (bytes.fromhex(row[name]) for name in ("public key", "message", "signature"))
    assert backend.verify_schnorr(key, msg, sig) is (row["verification result"] == "TRUE")


@pytest.mark.parametrize("row", [row for row in VECTORS if row["aux_rand"]
                                 and len(row["message"]) == 64], ids=lambda row: row["index"])
def test_bip340_vector_is_signed_alike(backend, row):
    secret, aux, msg = (bytes.fromhex(row[n]) for n in ("secret key", "aux_rand", "message"))
    assert backend.pubkey_compressed(secret)[1:] == bytes.fromhex(row["public key"])
    assert backend.sign_schnorr(secret, msg, aux) == bytes.fromhex(row["signature"])


@settings(max_examples=25, deadline=None)
@given(SECRETS, HASHES, HASHES, st.integers(0, 511))
def test_back_ends_agree(both, secret, msg, aux, flipped_bit):
    lib, pure = both
    public = lib.pubkey_compressed(secret)
    sig = lib.sign_schnorr(secret, msg, aux)
    assert pure.pubkey_compressed(secret) == public
    assert pure.sign_schnorr(secret, msg, aux) == sig
    bad = bytearray(sig)
    bad[flipped_bit // 8] ^= 1 << flipped_bit % 8
    for one in both:
        assert one.verify_schnorr(public[1:], msg, sig)
        assert not one.verify_schnorr(public[1:], msg, bytes(bad))
        assert not one.verify_schnorr(public[1:], hashlib.sha256(msg).digest(), sig)


@settings(max_examples=25, deadline=None)
@given(SECRETS, SECRETS)
def test_shared_secret_is_the_same_on_every_side(both, one, other):
    lib, pure = both
    shared = lib.ecdh_x(one, lib.pubkey_compressed(other)[1:])
    assert shared == lib.ecdh_x(other, lib.pubkey_compressed(one)[1:])
    assert shared == pure.ecdh_x(one, lib.pubkey_compressed(other)[1:])


@settings(max_examples=25, deadline=None)
@given(SECRETS, HASHES)
def test_recoverable_signatures_cross(both, secret, msg):
    public = both[0].pubkey_compressed(secret)
    for signer in both:
        sig, recid = signer.sign_recoverable(secret, msg)
        assert int.from_bytes(sig[32:], "big") <= N // 2
        for reader in both:
            assert reader.recover(msg, sig, recid) == public
            assert reader.recover(msg, sig, recid ^ 1) != public
            assert reader.verify_ecdsa(public, msg, sig)


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64),
       st.integers(0, 3))
def test_back_ends_agree_on_rubbish(both, data, sig, recid):
    lib, pure = both
    assert lib.verify_schnorr(data, data, sig) is pure.verify_schnorr(data, data, sig) is False
    assert outcome(lib.recover, data, sig, recid) == outcome(pure.recover, data, sig, recid)
    assert (outcome(lib.ecdh_x, bytes(31) + b"\7", data)
            == outcome(pure.ecdh_x, bytes(31) + b"\7", data))


def test_high_s_recovers_and_does_not_verify(backend):
    secret, msg = bytes(31) + b"\5", os.urandom(32)
    sig, recid = backend.sign_recoverable(secret, msg)
    high = sig[:32] + (N - int.from_bytes(sig[32:], "big")).to_bytes(32, "big")
    public = backend.pubkey_compressed(secret)
    assert backend.recover(msg, high, recid ^ 1) == public
    assert not backend.verify_ecdsa(public, msg, high)


def test_b24_key_that_is_no_point(backend):
    sig = backend.sign_schnorr(bytes(31) + b"\1", bytes(32), bytes(32))
    for x in (bytes(32), b"\xff" * 32, P.to_bytes(32, "big"), (P + 1).to_bytes(32, "big"),
              bytes.fromhex("eb1f7200aecaa86682376fb1c13cd12b732221e774f553b0a0857f88fa20f86d")):
        assert backend.verify_schnorr(x, bytes(32), sig) is False
        with pytest.raises(InvalidMessage):
            backend.ecdh_x(bytes(31) + b"\1", x)


def test_ecdsa_signature_of_another_or_by_no_key(backend):
    secret, msg = bytes(31) + b"\5", bytes(31) + b"\1"
    sig, _ = backend.sign_recoverable(secret, msg)
    public = backend.pubkey_compressed(secret)
    assert backend.verify_ecdsa(public, msg, sig)
    assert not backend.verify_ecdsa(public, bytes(32), sig)
    assert not backend.verify_ecdsa(public, msg, bytes(64))
    assert not backend.verify_ecdsa(b"\2" + bytes(32), msg, sig)
    assert not backend.verify_ecdsa(b"\5" + public[1:], msg, sig)


@pytest.mark.parametrize("r, s", [(P, 1), (P + 5, 1), (1, N), (1, N + 1), (0, 0), (0, 1), (1, 0),
                                  (2**256 - 1, 2**256 - 1)])
def test_b25_signature_out_of_range(backend, r, s):
    sig = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert backend.verify_schnorr(GENERATOR_X, bytes(32), sig) is False


@pytest.mark.parametrize("sig, recid", [(bytes(64), 0), (b"\xff" * 64, 1),
                                        (b"\xff" * 32 + b"\1" * 32, 2)])
def test_recover_refuses_what_cannot_be(backend, sig, recid):
    with pytest.raises(InvalidMessage):
        backend.recover(b"\1" * 32, sig, recid)


@pytest.mark.parametrize("secret", [bytes(32), N.to_bytes(32, "big"), b"\xff" * 32])
def test_secret_out_of_range(backend, secret):
    for call in (lambda: backend.pubkey_compressed(secret),
                 lambda: backend.sign_schnorr(secret, bytes(32), bytes(32)),
                 lambda: backend.sign_recoverable(secret, bytes(32)),
                 lambda: backend.ecdh_x(secret, GENERATOR_X)):
        with pytest.raises(ValueError):
            call()


def outcome(call, *arguments):
    try:
        return call(*arguments)
    except InvalidMessage:
        return "refused"
