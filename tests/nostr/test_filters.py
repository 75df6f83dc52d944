import pytest
from hypothesis import given, settings, strategies as st

from pylon.nostr import filters
from pylon.nostr.keys import Keys
from tests.nostr.conftest import NOW

ALICE = Keys(bytes(31) + b"\1")
EVENT = ALICE.sign(5050, "x", [["p", "ab" * 32], ["p", "cd" * 32], ["t"], ["k", "v", "other"]], NOW)

CONDITIONS = st.fixed_dictionaries({}, optional={
    "ids": st.lists(st.sampled_from([EVENT.id, "ab" * 32])),
    "authors": st.lists(st.sampled_from([EVENT.pubkey, "ab" * 32])),
    "kinds": st.lists(st.sampled_from([5050, 1])),
    "since": st.integers(NOW - 1, NOW + 1), "until": st.integers(NOW - 1, NOW + 1),
    "#p": st.lists(st.sampled_from(["ab" * 32, "ef" * 32])),
    "#k": st.lists(st.sampled_from(["v", "other"])), "limit": st.integers(0, 5)})


def obviously_matches(filter, event):
    """The NIP's words, one after the other."""
    wanted = [event.id in filter["ids"] if "ids" in filter else True,
              event.pubkey in filter["authors"] if "authors" in filter else True,
              event.kind in filter["kinds"] if "kinds" in filter else True,
              filter.get("since", 0) <= event.created_at <= filter.get("until", 2**60)]
    for letter in "pk":
        values = {tag[1] for tag in event.tags if tag[0] == letter and len(tag) > 1}
        wanted.append(bool(values & set(filter[f"#{letter}"])) if f"#{letter}" in filter else True)
    return all(wanted)


@settings(max_examples=200)
@given(CONDITIONS)
def test_as_the_slow_and_obvious_way(filter):
    assert filters.matches(filter, EVENT) is obviously_matches(filter, EVENT)


def test_c36_ids_are_compared_whole():
    assert not filters.matches({"ids": [EVENT.id[:16]]}, EVENT)
    assert not filters.matches({"ids": [EVENT.id[:16] + "0" * 48]}, EVENT)


def test_one_of_several_filters_is_enough():
    assert filters.matches_any([{"kinds": [1]}, {"kinds": [5050]}], EVENT)
    assert not filters.matches_any([{"kinds": [1]}], EVENT)
    assert not filters.matches_any([], EVENT)


@pytest.mark.parametrize("filter", [{"limit": 0}, {"search": "x"}, {"#long": ["x"]}])
def test_what_is_not_ours_to_judge_passes(filter):
    assert filters.matches(filter, EVENT)
