"""Amounts and durations at the edges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon import units
from pylon.errors import UsageError


@pytest.mark.parametrize("text, msats", [
    ("21", 21_000), ("21sats", 21_000), ("1 sat", 1000), ("21000msats", 21_000), ("5 msat", 5),
    (" 7 ", 7000), ("0", 0)])
def test_amounts_are_read(text, msats):
    assert units.parse_sats(text) == msats


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "1_000", "١٢٣", "21 btc", "NaN", "0x10",
                                  "2100000000000001 sats", "9" * 30, "1 sat sat"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UsageError):
        units.parse_sats(text)


@pytest.mark.parametrize("text, secs", [("90", 90), ("90s", 90), ("15m", 900), ("6h", 21600),
                                        ("2d", 172800), ("1w", 604800), ("0", 0)])
def test_durations_are_read(text, secs):
    assert units.parse_duration(text) == secs


@pytest.mark.parametrize("text", ["", "-1", "1.5h", "1y", "m", "٣m", "1 000"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["", " 7", "1_000", "+1", "-1", "1.0", "١٢", "٣", None, 7])
def test_counts_take_plain_ascii_digits_only(text):
    with pytest.raises(ValueError):
        units.parse_count(text)


@given(st.integers(0, units.MAX_MSATS))
def test_rounding_up_never_loses_and_never_adds_a_whole_sat(msats):
    rounded = units.round_up_to_sats(msats)
    assert rounded % 1000 == 0 and 0 <= rounded - msats < 1000


@pytest.mark.parametrize("msats, text", [
    (0, "0 sats"), (1000, "1 sat"), (2000, "2 sats"), (1_234_000, "1,234 sats"),
    (1500, "1.5 sats"), (1, "0.001 sats"), (-2000, "-2 sats")])
def test_amounts_are_shown(msats, text):
    assert units.format_sats(msats) == text


@pytest.mark.parametrize("secs, text", [(0, "0s"), (42.9, "42s"), (200, "3m 20s"), (3600, "1h"),
                                        (18120, "5h 2m"), (356400, "4d 3h")])
def test_durations_are_shown(secs, text):
    assert units.format_duration(secs) == text
