"""Estimates of tokens: the order of the two bounds; the real tokenizer is asked in test_real."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon.backends import tokens


@given(st.text(max_size=300))
def test_the_bounds_never_cross(text):
    assert tokens.at_least([{"role": "user", "content": text}]) <= tokens.at_most(text)


@given(st.text(max_size=100), st.text(max_size=100))
def test_more_text_is_never_fewer_tokens(one, other):
    assert tokens.at_most(one + " " + other) >= max(tokens.at_most(one), tokens.at_most(other))


@given(st.text(alphabet=st.characters(min_codepoint=128), max_size=100))
def test_foreign_scripts_count_their_bytes(text):
    assert tokens.at_most(text) == len(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("text, most", [
    ("", 0), ("the cat sat on the mat", 6), ("12345", 5), ("{}[]()", 6), ("é", 2), ("😀", 4),
    ("internationalization", 14)])
def test_examples(text, most):
    assert tokens.at_most(text) == most


def test_ordinary_english_is_not_counted_more_than_twice():
    text = ("Turns a small computer into a node of an open market for machine intelligence, "
            "so that strangers can buy its answers. ") * 20
    words = len(text.split())
    assert words < tokens.at_most(text) < 2.6 * words


def test_a_prompt_has_a_template_too():
    messages = [{"role": "user", "content": "hi"}] * 3
    assert tokens.at_most_in(messages) == 40 + 3 * 9
