import pytest
from hypothesis import given, settings, strategies as st

from pylon.nostr import event as events, nip13
from tests.nostr.conftest import NOW

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@pytest.mark.parametrize("id_, bits", [
    ("f" * 64, 0), ("7" + "f" * 63, 1), ("0" * 64, 256), ("0" * 63 + "1", 255),
    ("000006d8c378af1779d2feebc7603a125d99eca0ccf1085959b307f64e5dd358", 21)])
def test_difficulty(id_, bits):
    assert nip13.difficulty(id_) == bits


def test_bits_are_read_not_only_whole_digits():
    assert nip13.difficulty("1" + "f" * 63) == 3 and nip13.difficulty("2" + "f" * 63) == 2


@settings(max_examples=20, deadline=None)
@given(TEXT, st.lists(st.lists(TEXT, min_size=1, max_size=3), max_size=3), st.integers(0, 9))
def test_what_is_mined_counts(alice, content, tags, bits):
    mined = nip13.mine(alice.pubkey, NOW, 1, tags, content, bits)
    event = alice.sign(1, content, mined, NOW)
    events.verify(event)
    assert nip13.committed(event) == bits <= nip13.difficulty(event.id)


def test_an_old_nonce_is_replaced(alice):
    mined = nip13.mine(alice.pubkey, NOW, 1, [["nonce", "5", "99"], ["t", "x"]], "", 6)
    assert [tag[0] for tag in mined] == ["t", "nonce"]
    assert nip13.committed(alice.sign(1, "", mined, NOW)) == 6


def test_mining_can_be_given_up(alice):
    assert nip13.mine(alice.pubkey, NOW, 1, [], "", 256, give_up=lambda: True) is None


@pytest.mark.parametrize("tag", [["nonce", "1"], ["nonce", "1", "x"], ["nonce", "1", "-5"],
                                 ["nonce", "1", "\u0661"], ["nonce", "1", "250"], ["t", "x"]])
def test_without_a_reached_target_there_is_no_work(alice, tag):
    assert nip13.committed(alice.sign(1, "", [tag], NOW)) == 0


def test_luck_beyond_the_target_does_not_count(alice):
    mined = nip13.mine(alice.pubkey, NOW, 1, [], "", 8)
    assert nip13.committed(alice.sign(1, "", mined, NOW)) == 8
