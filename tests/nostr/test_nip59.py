"""Gift wraps and direct messages."""

import json

import pytest

from pylon.errors import InvalidMessage
from pylon.nostr import event as events, nip17, nip59
from tests.nostr.conftest import NOW


def sealed(author, reader, inner, tags=(), kind=nip59.SEAL):
    """A wrap to `reader` around a seal of `author` around the text `inner`."""
    seal = author.sign(kind, author.nip44_encrypt(reader.pubkey, inner), tags, NOW)
    return around(reader, seal.to_json())


def around(reader, text, kind=nip59.WRAP):
    once = nip59.key_pairs.generate()
    return once.sign(kind, once.nip44_encrypt(reader.pubkey, text), [["p", reader.pubkey]], NOW)


def test_a_rumor_comes_through(alice, bob):
    inner = nip59.rumor(alice.pubkey, 14, "hällo", [["p", bob.pubkey]], NOW)
    wrapped = nip59.wrap(alice, bob.pubkey, inner, NOW)
    events.verify(wrapped)
    assert nip59.unwrap(bob, wrapped) == inner


def test_relays_learn_nothing_but_the_reader(alice, bob):
    inner = nip59.rumor(alice.pubkey, 14, "SECRET", [], NOW)
    wraps = [nip59.wrap(alice, bob.pubkey, inner, NOW) for _ in range(20)]
    for one in wraps:
        assert alice.pubkey not in one.to_json() and one.tags == [["p", bob.pubkey]]
        assert NOW - nip59.BACKDATED_SECS < one.created_at <= NOW
    assert len({one.pubkey for one in wraps}) == 20
    assert len({one.created_at for one in wraps}) > 10


def test_only_the_reader_opens_it(alice, bob, eve):
    wrapped = nip59.wrap(alice, bob.pubkey, nip59.rumor(alice.pubkey, 14, "x", [], NOW), NOW)
    for reader in (eve, alice):
        with pytest.raises(InvalidMessage):
            nip59.unwrap(reader, wrapped)


def test_nobody_speaks_for_another(alice, bob, eve):
    """The rumor says alice, the seal is eve's."""
    with pytest.raises(InvalidMessage, match="not by the one"):
        nip59.unwrap(bob, sealed(eve, bob, nip59.rumor(alice.pubkey, 14, "x", [], NOW).to_json()))
    with pytest.raises(InvalidMessage):
        nip59.wrap(eve, bob.pubkey, nip59.rumor(alice.pubkey, 14, "x", [], NOW), NOW)


def test_a_seal_with_a_forged_signature_is_refused(alice, bob, eve):
    """The seal names alice and eve signed it."""
    text = nip59.rumor(alice.pubkey, 14, "x", [], NOW).to_json()
    seal = eve.sign(13, eve.nip44_encrypt(bob.pubkey, text), [], NOW).to_dict()
    for name, value in (("pubkey", alice.pubkey), ("sig", "0" * 128)):
        with pytest.raises(InvalidMessage):
            nip59.unwrap(bob, around(bob, json.dumps({**seal, name: value})))
    honest = alice.sign(13, alice.nip44_encrypt(bob.pubkey, text), [], NOW)
    forged = {**honest.to_dict(), "sig": seal["sig"]}
    with pytest.raises(InvalidMessage, match="signature"):
        nip59.unwrap(bob, around(bob, json.dumps(forged)))


@pytest.mark.parametrize("change", [
    {"id": "ab" * 32}, {"pubkey": None}, {"pubkey": "AB" * 32}, {"kind": True}, {"tags": [[]]},
    {"content": "\ud800"}, {"created_at": "x"}, {"id": 5}])
def test_a_malformed_rumor_is_refused(alice, bob, change):
    inner = json.loads(nip59.rumor(alice.pubkey, 14, "x", [], NOW).to_json())
    with pytest.raises(InvalidMessage):
        nip59.unwrap(bob, sealed(alice, bob, json.dumps({**inner, **change})))


@pytest.mark.parametrize("text", ["[]", "null", "{}", "x", "[" * 1000, '{"pubkey":"x"}'])
def test_rubbish_in_the_seal_or_the_wrap(alice, bob, text):
    with pytest.raises(InvalidMessage):
        nip59.unwrap(bob, sealed(alice, bob, text))
    with pytest.raises(InvalidMessage):
        nip59.unwrap(bob, around(bob, text))


def test_a_rumor_without_its_id_is_taken(alice, bob):
    inner = nip59.rumor(alice.pubkey, 14, "x", [], NOW)
    value = json.loads(inner.to_json())
    del value["id"]
    assert nip59.unwrap(bob, sealed(alice, bob, json.dumps(value))) == inner


def test_seals_have_no_tags_and_their_own_kind(alice, bob):
    text = nip59.rumor(alice.pubkey, 14, "x", [], NOW).to_json()
    for wrapped in (sealed(alice, bob, text, tags=[["p", "x"]]), sealed(alice, bob, text, kind=1),
                    around(bob, text), around(bob, "x", kind=1)):
        with pytest.raises(InvalidMessage):
            nip59.unwrap(bob, wrapped)


def test_too_large_is_refused(alice, bob):
    with pytest.raises(InvalidMessage):
        nip59.wrap(alice, bob.pubkey, nip59.rumor(alice.pubkey, 14, "x" * 60_000, [], NOW), NOW)


def test_a_message_and_the_copy_we_keep(alice, bob):
    wraps = nip17.build(alice, [bob.pubkey], "hi", NOW, "subject", "ab" * 32)
    assert [pubkey for pubkey, _ in wraps] == [bob.pubkey, alice.pubkey]
    messages = [nip17.parse(nip59.unwrap(reader, wrapped))
                for reader, (_, wrapped) in zip((bob, alice), wraps)]
    assert messages[0] == messages[1]
    message = messages[0]
    assert (message.sender, message.recipients, message.text, message.subject, message.reply_to,
            message.created_at) == (alice.pubkey, (bob.pubkey,), "hi", "subject", "ab" * 32, NOW)
    assert "hi" not in repr(message).replace("recipients", "")


@pytest.mark.parametrize("kind, tags", [(1, [["p", "ab" * 32]]), (14, []), (14, [["p", "x"]]),
                                        (15, [["p", "ab" * 32]]), (14, [["p", "ab" * 32]] * 11)])
def test_what_is_no_direct_message(alice, kind, tags):
    with pytest.raises(InvalidMessage):
        nip17.parse(nip59.rumor(alice.pubkey, kind, "x", tags, NOW))
