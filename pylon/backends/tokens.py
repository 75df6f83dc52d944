"""How many tokens a text is, without the model's tokenizer: from above and from below.

Pure. `at_most` decides what is taken, before anybody pays, so it must not be too small; `at_least`
tells a prompt that a backend has silently shortened, so it must not be too big. Held against a
real tokenizer by a test.
"""

from __future__ import annotations

import re

MESSAGE_TOKENS = 8          # a message's role and its marks
TEMPLATE_TOKENS = 40        # what a chat template adds by itself, a default system message included
LONG_WORD_CHARS = 12

_ASCII_PARTS = re.compile(r"[a-z]+|[ \t]{2,}|[^a-z ]", re.ASCII)
_WORDS = re.compile(r"\S+")


def at_most(text: str) -> int:
    """Tokens that this text will hardly exceed with any tokenizer in use."""
    total = 0
    for run in re.findall(r"[\x00-\x7f]+|[^\x00-\x7f]+", text):
        total += _ascii(run) if run.isascii() else len(run.encode("utf-8", "surrogatepass"))
    return total


def _ascii(text: str) -> int:
    """Three letters of a common word make a token at worst; the rest may be one each."""
    total = 0
    for part in _ASCII_PARTS.findall(text):
        if not part[0].islower():
            total += len(part)
        elif len(part) <= LONG_WORD_CHARS:
            total += -(-len(part) // 3)
        else:
            total += -(-len(part) * 2 // 3)         # no word but a name, a hash, a base64
    return total


def at_most_in(messages: list[dict[str, str]]) -> int:
    """As `at_most`, for a whole prompt with its chat template."""
    return TEMPLATE_TOKENS + sum(at_most(m["content"]) + MESSAGE_TOKENS for m in messages)


def at_least(messages: list[dict[str, str]]) -> int:
    """Tokens that these messages make with any tokenizer: no token reaches over two words."""
    return sum(len(_WORDS.findall(m["content"])) for m in messages)
