import copy
import pickle

import pytest

from pylon.errors import IdentityError, InvalidMessage
from pylon.nostr import event as events, keys, nip42
from pylon.nostr.keys import Keys
from tests.nostr.conftest import NOW

SECRET = bytes.fromhex("7f7ff03d123792d6ac594bfa67bf6d0c0ab55b6b1fdb6249303fe861f1ccba9a")


def test_no_secret_in_any_rendering():
    """RUSTSEC-2026-0225: debug output held the secret."""
    mine = Keys(SECRET)
    for text in (repr(mine), str(mine), f"{mine}", f"{mine!r}", "%s" % mine, repr([mine])):
        assert SECRET.hex()[:8] not in text and "nsec" not in text and repr(SECRET) not in text
    for call in (lambda: pickle.dumps(mine), lambda: copy.copy(mine), lambda: copy.deepcopy(mine)):
        with pytest.raises(TypeError):
            call()
    assert not hasattr(mine, "__dict__")


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, bytes(31), "00" * 16])
def test_bad_secret(secret):
    with pytest.raises(IdentityError):
        Keys(secret)


def test_equal_by_public_key():
    assert Keys(SECRET) == Keys(SECRET) and hash(Keys(SECRET)) == hash(Keys(SECRET))
    assert Keys(SECRET) != keys.generate() and Keys(SECRET) != Keys(SECRET).pubkey


def test_generated_keys_differ():
    assert keys.generate() != keys.generate()


@pytest.mark.parametrize("kind, content, tags, created_at", [
    (70000, "", [], NOW), (1, None, [], NOW), (1, "", [[]], NOW), (1, "", [["t", 5]], NOW),
    (1, "", [], 1.5), (1, "", [["t"]] * 201, NOW), (1, "x" * 65_537, [], NOW)])
def test_nothing_is_signed_that_we_would_refuse(alice, kind, content, tags, created_at):
    with pytest.raises(InvalidMessage):
        alice.sign(kind, content, tags, created_at)


def test_a_signed_event_owns_its_tags(alice):
    tags = [["t", "x"]]
    event = alice.sign(1, "", tags, NOW)
    tags[0].append("y")
    events.verify(event)


@pytest.mark.parametrize("pubkey", ["", "AB" * 32, "ab" * 31, "00" * 32, "ff" * 32, None])
def test_b24_nothing_is_encrypted_to_no_key(alice, pubkey):
    for call in (alice.nip04_encrypt, alice.nip44_encrypt, alice.nip04_decrypt,
                 alice.nip44_decrypt):
        with pytest.raises(InvalidMessage):
            call(pubkey, "text")


def test_nip42_answer_names_its_relay(alice):
    event = nip42.auth_event(alice, "wss://relay.example", "challenge", NOW)
    events.verify(event)
    assert (event.kind, event.first("relay"), event.first("challenge"), event.content) == (
        22242, "wss://relay.example", "challenge", "")
