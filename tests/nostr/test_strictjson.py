"""Section A of the catalogue: what a decoder must not let through."""

import json

import pytest
from hypothesis import given, strategies as st

from pylon.errors import InvalidMessage
from pylon.nostr.strictjson import load

JSON = st.recursive(st.none() | st.booleans() | st.integers(-2**60, 2**60) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(JSON)
def test_reads_what_json_dumps_writes(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1),
                 f" \n{json.dumps(value)}\t\r"):
        assert load(text) == value


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_a09_nesting_without_end(text):
    with pytest.raises(InvalidMessage):
        load(text)


@pytest.mark.parametrize("text", ["9" * 5000, f"[{'1' * 100_000}]"])
def test_a10_number_of_thousands_of_digits(text):
    with pytest.raises(InvalidMessage):
        load(text)


@pytest.mark.parametrize("text", [
    "NaN", "[Infinity]", '{"a":-Infinity}', '{"a":1,"a":1}', '[{"a":1,"b":2,"a":3}]',
    '{"x":{"id":"1","id":"2"}}', '{"a":1,"\\u0061":2}'])
def test_a11_nan_infinity_and_duplicate_keys(text):
    with pytest.raises(InvalidMessage):
        load(text)


@pytest.mark.parametrize("text", [
    "", " ", "[", "nul", "[1,]", "{'a':1}", "[1] 2", "[1]]", "\ufeff[]", "// x", '"a\nb"', '"\\x"',
    "[1\x00]", "01", None, b"[]", 7])
def test_not_json(text):
    with pytest.raises(InvalidMessage) as err:
        load(text)
    assert len(str(err.value)) < 200
