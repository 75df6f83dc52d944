"""Prices: the minimum, tokens in and out, whole sats, and a model's own table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon import config
from pylon.provider.pricing import Rate, rate_for


def test_the_minimum_holds_where_tokens_cost_less():
    assert Rate(0, 10, 10, 1000).price(100, 100, whole_sats=False) == 1000


def test_tokens_are_added_to_the_base_and_rounded_up():
    assert Rate(500, 1000, 2000, 0).price(1, 1, whole_sats=False) == 503


@pytest.mark.parametrize("minimum, price", [(0, 0), (1, 1000), (999, 1000), (1001, 2000)])
def test_sub_sat_prices_round_up_to_whole_sats(minimum, price):
    assert Rate(0, 0, 0, minimum).price(0, 0, whole_sats=True) == price


@given(base=st.integers(0, 10**9), per_in=st.integers(0, 10**6), per_out=st.integers(0, 10**6),
       tokens=st.integers(0, 10**5), answer=st.integers(0, 10**5))
def test_never_less_than_the_exact_price(base, per_in, per_out, tokens, answer):
    price = Rate(base, per_in, per_out, 0).price(tokens, answer, whole_sats=False)
    exact = base * 1000 + tokens * per_in + answer * per_out
    assert exact <= price * 1000 < exact + 1000


def test_a_models_own_table_replaces_the_common_one():
    settings = config.from_values({"pricing": {"base_msats": 7, "models": {
        "big": {"base_msats": 70, "output_msats_per_1k": 5}}}})
    assert rate_for(settings, "big") == Rate(70, 0, 5, 1000)
    assert rate_for(settings, "small") == Rate(7, 0, 0, 1000)
