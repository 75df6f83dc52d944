"""JSON from strangers: what Python's decoder lets through and JSON does not have, is refused.

NaN and Infinity, duplicate keys, nesting without end and numbers of thousands of digits all raise
InvalidMessage. (Looking for duplicates costs a relay frame one microsecond of forty.)
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pylon.errors import InvalidMessage

_WHITESPACE = " \t\n\r"


def load(text: str) -> Any:
    """The value of a JSON text. Raises InvalidMessage."""
    if not isinstance(text, str):
        raise InvalidMessage("not a text")
    try:
        value, end = _scan(text, 0)
        if end != len(text) and text[end:].strip(_WHITESPACE):
            raise InvalidMessage("not JSON: something follows the value")
        return value
    except StopIteration:
        if text[:1] and text[0] in _WHITESPACE:
            return load(text.lstrip(_WHITESPACE))
        raise InvalidMessage("not JSON") from None
    except RecursionError:
        raise InvalidMessage("not JSON: nested too deep") from None
    except InvalidMessage:
        raise
    except ValueError as err:           # JSONDecodeError is one, and so is a number too long
        raise InvalidMessage(f"not JSON: {str(err)[:80]}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


# The scanner without JSONDecoder.decode around it, which costs as much as the scanning.
_decoder: Any = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique)
_scan = _decoder.scan_once
