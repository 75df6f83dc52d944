"""Frames: section A of the catalogue, as far as it is about their text."""

import json

import pytest
from hypothesis import given, strategies as st

from pylon.errors import InvalidMessage
from pylon.nostr import messages
from pylon.nostr.keys import Keys
from pylon.nostr.messages import Auth, Closed, Eose, Notice, Ok, RelayEvent, parse, prefix
from tests.nostr.conftest import NOW

ID = "ab" * 32
EVENT = Keys(bytes(31) + b"\1").sign(1, "hi", [], NOW)


@pytest.mark.parametrize("text, message", [
    (f'["EVENT","s",{EVENT.to_json()}]', RelayEvent("s", EVENT)),
    (f' [ "EVENT" , "s" , {EVENT.to_json()} ]\n', RelayEvent("s", EVENT)),
    (f'["OK","{ID}",true,""]', Ok(ID, True, "")),
    (f'["OK","{ID}",false,"pow: 20 bits"]', Ok(ID, False, "pow: 20 bits")),
    (f'["OK","{ID}",true]', Ok(ID, True, "")),
    ('["EOSE","s"]', Eose("s")),
    ('["CLOSED","s","auth-required: who?"]', Closed("s", "auth-required: who?")),
    ('["CLOSED","s"]', Closed("s", "")),
    ('["NOTICE","hello"]', Notice("hello")),
    ('["AUTH","challenge"]', Auth("challenge"))])
def test_every_frame(text, message):
    assert parse(text) == message


@pytest.mark.parametrize("text", [
    "null", "{}", '"EVENT"', "[]", "[1]", '[["EVENT"]]', '["UNKNOWN"]', '["event","s"]',
    '["EVENT"]', '["EVENT","s"]', f'["EVENT",{EVENT.to_json()}]', '["EVENT","s",null]',
    f'["EVENT",5,{EVENT.to_json()}]', f'["EVENT","",{EVENT.to_json()}]',
    f'["EVENT","{"s" * 65}",{EVENT.to_json()}]', f'["EVENT","s",{EVENT.to_json()},1]',
    '["OK"]', f'["OK","{ID}"]', f'["OK","{ID}","true",""]', f'["OK","{ID}",1,""]',
    '["OK","xyz",true,""]', f'["OK","{ID.upper()}",true,""]', f'["OK","{ID}",true,5]',
    f'["OK","{ID}",true,"",""]', '["EOSE"]', '["EOSE",5]', '["EOSE","s","t"]', '["CLOSED"]',
    '["CLOSED","s",5]', '["NOTICE"]', '["NOTICE",5]', '["NOTICE","a","b"]', '["AUTH"]',
    '["AUTH",""]', '["AUTH",5]', '["AUTH",{}]', '["AUTH","\\ud800"]',
    f'["AUTH","{"c" * 1001}"]', '["COUNT","s",{"count":1}]'])
def test_a12_not_an_array_unknown_verb_wrong_arity(text):
    with pytest.raises(InvalidMessage):
        parse(text)


def test_a11_duplicate_keys_in_an_event():
    twice = EVENT.to_json().replace('"kind":1', '"kind":1,"kind":1')
    with pytest.raises(InvalidMessage):
        parse(f'["EVENT","s",{twice}]')


def test_a09_a10_deep_and_long():
    for text in ("[" * 100_000, f'["EVENT","s",{"[" * 100_000}', f'["NOTICE",{"9" * 5000}]'):
        with pytest.raises(InvalidMessage):
            parse(text)


def test_a17_a_megabyte_of_notice_is_cut():
    for text in ('["NOTICE","%s"]', '["CLOSED","s","%s"]', f'["OK","{ID}",false,"%s"]'):
        assert len(parse(text % ("x" * 1_000_000)).message) == messages.MAX_TEXT_CHARS


def test_a17_a_text_with_a_lone_surrogate_can_be_logged():
    assert parse('["NOTICE","a\\ud800b"]') == Notice("a?b")


@given(st.text(max_size=200) | st.binary(max_size=50))
def test_rubbish_never_does_anything_else(text):
    try:
        parse(text)
    except InvalidMessage:
        return


@pytest.mark.parametrize("message, word", [
    ("duplicate: have it", "duplicate"), ("auth-required: x", "auth-required"),
    ("rate-limited:", "rate-limited"), ("hello: x", ""), ("duplicate", ""), ("", ""),
    ("Duplicate: x", "")])
def test_prefix(message, word):
    assert prefix(message) == word


def test_what_we_send():
    filters = [{"kinds": [5050], "#p": [ID]}, {"ids": [ID], "limit": 0}]
    assert json.loads(messages.req("s", filters)) == ["REQ", "s", *filters]
    assert messages.close("s") == '["CLOSE","s"]'
    assert messages.publish(EVENT.to_json()) == f'["EVENT",{EVENT.to_json()}]'
    assert messages.auth(EVENT.to_json()) == f'["AUTH",{EVENT.to_json()}]'
