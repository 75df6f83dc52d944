"""Section B of the catalogue: events that must not pass, and that nothing mutated does."""

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given, settings, strategies as st

from pylon.crypto import secp
from pylon.crypto.pure import Pure
from pylon.errors import InvalidMessage
from pylon.nostr import event as events
from pylon.nostr.event import Event, event_id, parse, verify
from pylon.nostr.keys import Keys
from tests.nostr.conftest import NOW

ALICE = Keys(bytes(31) + b"\1")
GOOD = ALICE.sign(5050, "héllo \U0001f600 \"q\" \\ \n", [["i", "x", "text"], ["p", "ab" * 32]], NOW)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
TAGS = st.lists(st.lists(TEXT, min_size=1, max_size=4), max_size=6)


def changed(**fields):
    return {**GOOD.to_dict(), **fields}


def rejected(obj):
    try:
        verify(parse(obj))
    except InvalidMessage:
        return True
    return False


def test_a_good_event_passes():
    verify(parse(json.loads(GOOD.to_json())))
    assert parse(json.loads(GOOD.to_json())) == GOOD


@settings(max_examples=60)
@given(st.integers(0, 65535), TEXT, TAGS, st.integers(0, 2**40))
def test_what_we_sign_verifies_and_survives_json(kind, content, tags, created_at):
    event = ALICE.sign(kind, content, tags, created_at)
    again = parse(events.load_json(event.to_json()))
    verify(again)
    assert again == event
    assert json.loads(event.to_json()) == event.to_dict()
    serialised = json.dumps([0, event.pubkey, created_at, kind, tags, content],
                            ensure_ascii=False, separators=(",", ":"))
    assert event.id == hashlib.sha256(serialised.encode()).hexdigest()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_mutation_of_any_field_is_rejected(data):
    name = data.draw(st.sampled_from(sorted(GOOD.to_dict())))
    value = GOOD.to_dict()[name]
    if name in ("id", "pubkey", "sig"):
        at = data.draw(st.integers(0, len(value) - 1))
        new = value[:at] + data.draw(st.sampled_from("0123456789abcdef")) + value[at + 1:]
    elif name == "content":
        new = data.draw(TEXT)
    elif name == "tags":
        new = data.draw(TAGS)
    else:
        new = data.draw(st.integers(0, 65535) if name == "kind" else st.integers(0, 2**40))
    if new != value:
        assert rejected(changed(**{name: new}))
        verify(GOOD)            # and the true event is none the worse for it
        assert rejected(changed(**{name: new})), "second delivery"


def test_b21_good_id_changed_content():
    assert rejected(changed(content="something else"))


def test_b22_changed_id_good_signature_over_the_old():
    other = event_id(GOOD.pubkey, GOOD.created_at, GOOD.kind, GOOD.tags, "other")
    assert rejected(changed(id=other))
    assert rejected(changed(id=other, content="other"))


def test_b23_a_bad_signature_after_a_good_one_and_before():
    """RUSTSEC-2026-0224, -0232: no cache may answer for an id before the signature is checked."""
    forged = changed(sig="0" * 128)
    assert rejected(forged)
    verify(parse(GOOD.to_dict()))
    assert rejected(forged)
    verify(parse(GOOD.to_dict()))


def test_b23_half_an_id_is_not_an_id():
    """RUSTSEC-2026-0232: a key of 64 bits can be collided."""
    assert rejected(changed(id=GOOD.id[:16] + "0" * 48))


@pytest.mark.parametrize("name", ["id", "pubkey", "sig"])
@pytest.mark.parametrize("spoil", [
    str.upper, lambda t: t[:-1], lambda t: t + "0", lambda t: " " + t[1:], lambda t: t[:-2] + "zz",
    lambda t: "", lambda t: None, lambda t: 5, lambda t: [t], lambda t: t.encode(),
    lambda t: t[:-1] + "\u0661", lambda t: "\n" + t[:-1]])
def test_b24_hex_that_is_none(name, spoil):
    value = GOOD.to_dict()[name]
    with pytest.raises(InvalidMessage):
        parse(changed(**{name: spoil(value)}))


def test_b24_pieces_of_wrong_length_that_add_up():
    joined = GOOD.id + GOOD.pubkey + GOOD.sig
    with pytest.raises(InvalidMessage):
        parse(changed(id=joined[:63], pubkey=joined[63:128], sig=joined[128:]))


@pytest.mark.parametrize("pubkey", [
    "00" * 32, "ff" * 32, "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30",
    "eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34"])
def test_b24_pubkey_not_on_the_curve(pubkey):
    id_ = event_id(pubkey, NOW, 1, [], "")
    assert rejected({"id": id_, "pubkey": pubkey, "created_at": NOW, "kind": 1, "tags": [],
                     "content": "", "sig": GOOD.sig})


@pytest.mark.parametrize("sig", [
    "0" * 128, "f" * 128, "0" * 64 + GOOD.sig[64:], GOOD.sig[:64] + "0" * 64,
    "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f" + GOOD.sig[64:],
    GOOD.sig[:64] + "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"])
def test_b25_signature_out_of_range(sig):
    assert rejected(changed(sig=sig))


@pytest.mark.parametrize("value", [1.5, 1780000000.0, True, False, "1780000000", None, 2**63,
                                   2**53 + 1, -1, [1], float("inf"), 10**400])
def test_b26_created_at_that_is_no_time(value):
    with pytest.raises(InvalidMessage):
        parse(changed(created_at=value))


@pytest.mark.parametrize("value", [-1, 65536, True, 1.0, "1", None, 2**63])
def test_b27_kind_out_of_range(value):
    with pytest.raises(InvalidMessage):
        parse(changed(kind=value))


@pytest.mark.parametrize("value", [
    None, "tags", {}, [None], ["e"], [[]], [["e"], []], [["e", None]], [["e", 1]], [[["e"]]],
    [["e", True]], [{"e": "x"}], [["e", {"x": 1}]], [("e", "x")], 5])
def test_b28_tags_that_are_none(value):
    with pytest.raises(InvalidMessage):
        parse(changed(tags=value))


def test_b29_lone_surrogate():
    for fields in ({"content": "\ud800"}, {"tags": [["t", "\udfff"]]}, {"tags": [["\ud800", "x"]]}):
        with pytest.raises(InvalidMessage):
            parse(changed(**fields))
    with pytest.raises(InvalidMessage):
        parse(events.load_json(GOOD.to_json().replace("x", "\\ud800")))
    with pytest.raises(InvalidMessage):
        ALICE.sign(1, "\ud800", [], NOW)
    with pytest.raises(InvalidMessage):
        event_id(GOOD.pubkey, NOW, 1, [], "\udc00")
    with pytest.raises(InvalidMessage):
        verify(dataclasses.replace(GOOD, content="\ud800"))


def test_b29_a_pair_of_surrogates_is_a_character():
    event = parse(events.load_json(ALICE.sign(1, "\U0001f600", [], NOW).to_json()
                                   .replace("\U0001f600", "\\ud83d\\ude00")))
    verify(event)
    assert event.content == "\U0001f600"


def test_b30_control_characters_have_one_form():
    content = "".join(map(chr, range(0x20))) + "\x7f\x80\u2028\u2029/"
    event = ALICE.sign(1, content, [["t", "\0\x1f"]], NOW)
    assert '\\u0000' in event.to_json() and '\\u001f' in event.to_json()
    assert "\x7f\x80\u2028\u2029/" in event.to_json(), "verbatim, as NIP-01 says"
    verify(parse(events.load_json(event.to_json())))
    raw = f'[0,"{event.pubkey}",{NOW},1,[],"a\x01"]'         # a form that is not ours
    with pytest.raises(InvalidMessage):
        verify(Event(hashlib.sha256(raw.encode()).hexdigest(), event.pubkey, NOW, 1, [], "a\x01",
                     secp.sign_schnorr(bytes(31) + b"\1", hashlib.sha256(raw.encode()).digest())
                     .hex()))


@pytest.mark.parametrize("fields", [
    {"tags": [["t", "x"]] * 2000}, {"tags": [["t"]] * 201}, {"content": "a" * 65_537},
    {"content": "é" * 32_769}, {"tags": [["t", "a" * 65_536]]},
    {"tags": [["t"] + ["x" * 1000] * 66]}])
def test_b32_too_large_is_rejected_before_hashing(fields, monkeypatch):
    monkeypatch.setattr(events, "_digest", lambda *a: pytest.fail("hashed"))
    with pytest.raises(InvalidMessage):
        parse(changed(**fields))


def test_b32_the_largest_passes():
    event = ALICE.sign(1, "a" * (65_536 - 400), [["t", "x"]] * 200, NOW)
    verify(parse(event.to_dict()))


@pytest.mark.parametrize("obj", [None, [], "x", 5, {}, True, {"id": GOOD.id}])
def test_not_an_event(obj):
    with pytest.raises(InvalidMessage):
        parse(obj)


def test_missing_field_is_named():
    for name in GOOD.to_dict():
        obj = GOOD.to_dict()
        del obj[name]
        with pytest.raises(InvalidMessage, match=name):
            parse(obj)


def test_unknown_fields_are_left_out():
    assert parse(changed(extra=1)) == GOOD


def test_tags_are_found_by_name():
    event = ALICE.sign(1, "", [["e", "1"], ["p"], ["e", "2", "wss://x"], ["d", ""]], NOW)
    assert event.first("e") == "1"
    assert event.all("e") == [["e", "1"], ["e", "2", "wss://x"]]
    assert event.first("p") is None and event.all("p") == [["p"]]
    assert event.first("d") == "" and event.first("x") is None


@pytest.mark.parametrize("tag, at", [
    (["expiration", "1780000000"], 1780000000), (["expiration", "0"], 0), (["expiration"], None),
    (["expiration", "-1"], None), (["expiration", "1e9"], None), (["expiration", "1_0"], None),
    (["expiration", "\u0661"], None), (["expiration", ""], None), (["x", "1"], None)])
def test_nip40_expiration(tag, at):
    assert ALICE.sign(1, "", [tag], NOW).expiration() == at


def test_an_event_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GOOD.content = "x"


def test_without_the_c_encoder_the_form_is_the_same(monkeypatch):
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    slow = events._make_dump()
    for tags in ([], [["a", 'é"\\\n\x01\x7f\u2028']], GOOD.tags):
        assert slow(tags) == events._dump(tags)


def test_without_the_library_events_are_the_same(monkeypatch):
    monkeypatch.setattr(secp, "_chosen", Pure())
    assert secp.backend_name() == "ecdsa"
    event = ALICE.sign(1, "é", [["t", "x"]], NOW)
    verify(parse(event.to_dict()))
    verify(GOOD)
    assert rejected(changed(content="else")) and rejected(changed(sig=event.sig))


def test_is_hex():
    assert events.is_hex("ab" * 32) and events.is_hex("0f", 2)
    for text in ("AB" * 32, "ab" * 31, " " * 64, "zz" * 32, None, b"ab" * 32, "ab " * 21 + "a"):
        assert not events.is_hex(text)
