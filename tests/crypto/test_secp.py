"""The one door: sizes, errors, which back end, and what it does not load."""

import subprocess
import sys
import threading

import pytest

from pylon.crypto import libsecp, secp
from pylon.crypto.pure import N, Pure
from pylon.errors import IdentityError, InvalidMessage

SECRET = bytes(31) + b"\7"


def test_the_library_is_chosen_where_there_is_one():
    assert secp.backend_name() == "libsecp256k1"


def test_without_the_library_ecdsa_is_chosen(monkeypatch):
    monkeypatch.setattr(secp, "_chosen", None)
    monkeypatch.setattr(secp, "open_library", lambda: None)
    assert secp.backend_name() == "ecdsa"
    assert secp.verify_schnorr(secp.pubkey(SECRET), bytes(32),
                               secp.sign_schnorr(SECRET, bytes(32)))


def test_a_library_without_schnorr_is_passed_over(monkeypatch):
    monkeypatch.setattr(libsecp, "SONAMES", ("libc.so.6", "libnothing.so.99"))
    assert libsecp.open_library() is None


def test_fresh_randomness_unless_given():
    one, two = secp.sign_schnorr(SECRET, bytes(32)), secp.sign_schnorr(SECRET, bytes(32))
    assert one != two
    assert (secp.sign_schnorr(SECRET, bytes(32), bytes(32))
            == secp.sign_schnorr(SECRET, bytes(32), bytes(32)))


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), bytes(32), N.to_bytes(32, "big"),
                                    "ab" * 16, None])
def test_bad_secrets_are_identity_errors(secret):
    for call in (lambda: secp.pubkey(secret), lambda: secp.sign_schnorr(secret, bytes(32)),
                 lambda: secp.sign_recoverable(secret, bytes(32)),
                 lambda: secp.ecdh_x(secret, secp.pubkey(SECRET))):
        with pytest.raises(IdentityError) as err:
            call()
        assert "ab" * 8 not in str(err.value)


@pytest.mark.parametrize("key, msg, sig", [
    (31, 32, 64), (33, 32, 64), (32, 31, 64), (32, 33, 64), (32, 32, 63), (32, 32, 65),
    (0, 0, 0)])
def test_wrong_sizes_never_reach_the_back_end(key, msg, sig):
    assert secp.verify_schnorr(bytes(key), bytes(msg), bytes(sig)) is False
    assert secp.verify_ecdsa(bytes(key), bytes(msg), bytes(sig)) is False


def test_wrong_sizes_raise_where_there_is_no_answer():
    with pytest.raises(InvalidMessage):
        secp.ecdh_x(SECRET, bytes(31))
    with pytest.raises(InvalidMessage):
        secp.recover(bytes(32), bytes(63), 0)
    with pytest.raises(InvalidMessage):
        secp.recover(bytes(32), bytes(64), 4)
    with pytest.raises(ValueError):
        secp.sign_schnorr(SECRET, bytes(31))
    with pytest.raises(ValueError):
        secp.sign_recoverable(SECRET, bytes(31))


def test_ecdh_with_no_point_is_the_peers_fault():
    with pytest.raises(InvalidMessage):
        secp.ecdh_x(SECRET, bytes(32))


def test_many_threads_share_the_context():
    wrong = []

    def work(number):
        secret = number.to_bytes(32, "big")
        public = secp.pubkey(secret)
        for count in range(50):
            msg = count.to_bytes(32, "big")
            if not secp.verify_schnorr(public, msg, secp.sign_schnorr(secret, msg)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_plain_work_loads_neither_ecdsa_nor_cryptography():
    """A node that has the library and serves plain jobs: 7 MB and 26 ms saved."""
    code = """
import sys
from pylon.nostr import (event, filters, keys, messages, nip04, nip06, nip13, nip19, nip42, nip44,
                         nip65, nip89, nip90)
mine = keys.generate()
job = nip90.build_request(mine, 5050, [("hi", "text")], {}, None, [], mine.pubkey, "", None, 1)
event.verify(event.parse(event.load_json(job.to_json())))
nip90.build_result(mine, nip90.parse_job(job, mine).event, "hello", None, None, "", 2)
loaded = {"ecdsa", "cryptography", "mnemonic", "requests"} & set(sys.modules)
assert not loaded, loaded
mine.nip44_decrypt(mine.pubkey, mine.nip44_encrypt(mine.pubkey, "x"))
assert "cryptography" in sys.modules and "ecdsa" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_pure_path_never_multiplies_a_secret_in_python(monkeypatch):
    """python-ecdsa is not constant time: with its arithmetic broken, secret work still works."""
    pure = Pure()

    class Broken:
        def __getattr__(self, name):
            raise AssertionError("point arithmetic in Python")
    monkeypatch.setattr(pure, "_generator", Broken())
    monkeypatch.setattr(pure, "_point_of", Broken())
    public = pure.pubkey_compressed(SECRET)
    assert len(pure.sign_schnorr(SECRET, bytes(32), bytes(32))) == 64
    assert pure.ecdh_x(SECRET, public[1:])
