import base64
import os

import pytest
from hypothesis import given, settings, strategies as st

from pylon.crypto import ciphers
from pylon.errors import InvalidMessage
from pylon.nostr import nip04

KEY = bytes(range(32))
TEXT = st.text(st.characters(exclude_categories=("Cs",)))


def b64(data):
    return base64.b64encode(data).decode()


@settings(max_examples=50)
@given(TEXT)
def test_round_trip(text):
    assert nip04.decrypt(KEY, nip04.encrypt(KEY, text)) == text


GOOD = nip04.encrypt(KEY, "hello")
BODY, IV = GOOD.split("?iv=")


@pytest.mark.parametrize("payload", [
    "", "?iv=", BODY, f"{BODY}?iv=", f"?iv={IV}", f"{BODY}?iv={b64(b'abc')}",
    f"{BODY}?iv={b64(bytes(15))}", f"{BODY}?iv={b64(bytes(17))}", f"{BODY}?iv={IV}?iv={IV}",
    f"{BODY}?iv={IV}?iv=", f"{BODY}?iv=?iv={IV}", f"{BODY}?IV={IV}", f"{b64(bytes(15))}?iv={IV}",
    f"{b64(b'')}?iv={IV}", f"{BODY[:-2]}?iv={IV}", f"{BODY}!?iv={IV}", f"{BODY}\n?iv={IV}",
    f"#{BODY}?iv={IV}", f"{BODY}?iv={IV}\u00e9", f"{BODY}?iv={IV}&x=1",
    "A" * 200_000 + f"?iv={IV}"],
    ids=range(21))
def test_c46_malformed_payloads_fail_alike(payload):
    """RUSTSEC-2026-0219 (an iv of another length), -0228 (many ?iv=), -0227 (oversize base64)."""
    with pytest.raises(InvalidMessage, match=r"^cannot decrypt \(NIP-04\)$"):
        nip04.decrypt(KEY, payload)


def test_c46_wrong_key_bad_padding_and_bad_text_fail_alike():
    iv = bytes(16)
    not_utf8 = ciphers.aes_cbc_encrypt(KEY, iv, b"\xff\xfe\xff")
    for fill in (b"\0", b"\x11", b"\x02\x03"):
        block = bytes(16 - len(fill)) + fill
        raw = ciphers.aes_cbc_encrypt(KEY, iv, block)[:16]      # without the padding block
        with pytest.raises(InvalidMessage, match=r"^cannot decrypt \(NIP-04\)$"):
            nip04.decrypt(KEY, f"{b64(raw)}?iv={b64(iv)}")
    with pytest.raises(InvalidMessage, match=r"^cannot decrypt \(NIP-04\)$"):
        nip04.decrypt(KEY, f"{b64(not_utf8)}?iv={b64(iv)}")


def test_c46_random_bytes_never_do_anything_else():
    for _ in range(300):
        payload = f"{b64(os.urandom(32))}?iv={b64(os.urandom(16))}"
        try:
            nip04.decrypt(KEY, payload)
        except InvalidMessage as err:
            assert str(err) == "cannot decrypt (NIP-04)"


def test_a_lone_surrogate_is_refused():
    with pytest.raises(InvalidMessage):
        nip04.encrypt(KEY, "\ud800")
