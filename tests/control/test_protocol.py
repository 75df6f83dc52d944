"""Lines of the control socket."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon.control import protocol
from pylon.errors import ControlError, InvalidMessage


@pytest.mark.parametrize("line, wanted", [
    (b'"Ping"', ("Ping", {})), (b'{"Ping":null}', ("Ping", {})), (b'  "Ping" \r', ("Ping", {})),
    (b'{"Ping":{}}', ("Ping", {})), (b'{"Job":{"id":"x"}}', ("Job", {"id": "x"}))])
def test_commands_of_the_first_pylon_and_newer_ones(line, wanted):
    assert protocol.parse_command(line) == wanted


@pytest.mark.parametrize("line", [
    b"", b"Ping", b"null", b"1", b"[]", b"{}", b'{"A":null,"B":null}', b'{"A":1}', b'{"A":[]}',
    b'""', b'"\\u0000"', b'"Pi ng"', b'"' + b"x" * 100 + b'"', b"\xff\xfe", b"[" * 50000,
    b'{"A":' + b"9" * 6000 + b"}", b'"P\xc3\xafng"'])
def test_h93_anything_else_is_an_invalid_message(line):
    with pytest.raises(InvalidMessage):
        protocol.parse_command(line)


@given(st.binary(max_size=300))
def test_h93_no_line_raises_anything_else(line):
    try:
        name, args = protocol.parse_command(line)
    except InvalidMessage:
        return
    assert isinstance(name, str) and isinstance(args, dict)


def test_what_is_asked_and_answered_stays_in_the_first_pylons_form():
    assert protocol.encode_command("Ping") == b'"Ping"\n'
    assert protocol.encode_command("Job", {"id": 1}) == b'{"Job":{"id":1}}\n'
    assert protocol.encode_reply("Ping", "Pong") == b'"Pong"\n'
    assert protocol.encode_reply("Shutdown", None) == b'"Ok"\n'
    assert json.loads(protocol.encode_reply("Status", {"running": True})) == \
        {"Status": {"running": True}}
    assert protocol.encode_error("no") == b'{"Error":"no"}\n'


@pytest.mark.parametrize("line, name, result", [
    (b'"Pong"', "Ping", "Pong"), (b'{"Pong":null}', "Ping", "Pong"), (b'"Ok"', "Shutdown", None),
    (b'{"Status":{"a":1}}', "Status", {"a": 1})])
def test_answers_are_read(line, name, result):
    assert protocol.parse_reply(line, name) == result


@pytest.mark.parametrize("line", [b"", b"rubbish", b"[]", b"[" * 5000, b'{"Other":1}', b"17"])
def test_what_is_no_answer_is_told(line):
    with pytest.raises(ControlError, match="makes no sense"):
        protocol.parse_reply(line, "Status")


def test_an_error_is_raised_with_its_reason():
    with pytest.raises(ControlError, match="^no such job$"):
        protocol.parse_reply(b'{"Error":"no such job"}', "Job")


@given(st.text(max_size=200))
def test_every_text_crosses(text):
    line = protocol.encode_reply("Echo", {"text": text})
    assert line.count(b"\n") == 1
    assert protocol.parse_reply(line, "Echo") == {"text": text}
