"""Filters cut to what relays take, and the memory of verified ids."""

from hypothesis import given
from hypothesis import strategies as st

from pylon.nostr import filters
from pylon.relays.subscription import MAX_FILTER_KINDS, VerifiedIds, cut, resumed
from tests.relays.conftest import NODE, an_event


def test_more_kinds_than_a_relay_takes_become_several_filters():
    """@nostr-relay takes 20 kinds in a filter; an agent wants 32."""
    pieces = cut([{"kinds": list(range(39200, 39232)), "#p": ["ab"]}])
    assert [len(piece["kinds"]) for piece in pieces] == [20, 12]
    assert all(piece["#p"] == ["ab"] for piece in pieces)


def test_small_filters_stay_as_they_are():
    asked = [{"kinds": [1], "limit": 5}, {"ids": ["ab"]}]
    assert cut(asked) == asked


def test_a_limit_is_cut_to_the_relays():
    assert cut([{"kinds": [1], "limit": 5000}, {"kinds": [2]}], max_limit=500) \
        == [{"kinds": [1], "limit": 500}, {"kinds": [2]}]


@given(st.sets(st.integers(0, 65535), max_size=60), st.sets(st.text(max_size=3), max_size=600),
       st.integers(0, 65535))
def test_the_pieces_ask_for_the_same(kinds, names, kind):
    asked = [{"kinds": sorted(kinds), "#t": sorted(names)}]
    pieces = cut(asked)
    assert all(len(piece["kinds"]) <= MAX_FILTER_KINDS for piece in pieces)
    for name in [*sorted(names)[:3], "no such name"]:
        event = an_event(kind=kind, tags=[["t", name]])
        assert filters.matches_any(pieces, event) == filters.matches_any(asked, event)


def test_after_a_reconnect_only_later_events_are_asked_for():
    assert resumed([{"kinds": [1], "since": 50}, {"kinds": [2]}, {"since": 500}], 100) \
        == [{"kinds": [1], "since": 100}, {"kinds": [2], "since": 100}, {"since": 500}]
    assert resumed([{"kinds": [1]}], None) == [{"kinds": [1]}]


def test_verified_ids_are_remembered_and_bounded():
    ids, known = VerifiedIds(size=100), [f"{number:064x}" for number in range(1000)]
    for one in known:
        ids.update([one])
    assert all(one in ids for one in known[-50:])
    assert sum(one in ids for one in known) <= 100
    assert "not hex" not in ids and "" not in ids


FILTERS = st.fixed_dictionaries({}, optional={
    "kinds": st.lists(st.integers(0, 3), max_size=3), "authors": st.lists(st.sampled_from(
        [NODE.pubkey, "ab" * 32]), max_size=2), "ids": st.lists(st.just("cd" * 32), max_size=1),
    "since": st.integers(0, 20), "until": st.integers(0, 20), "limit": st.integers(1, 5),
    "#t": st.lists(st.sampled_from("abc"), max_size=2)})


@given(st.lists(FILTERS, max_size=3), st.integers(0, 3), st.integers(0, 20),
       st.lists(st.sampled_from(["a", "b"]), max_size=2))
def test_the_fast_matcher_says_what_the_plain_one_says(asked, kind, at, names):
    event = an_event(kind=kind, at=at, tags=[["t", name] for name in names])
    assert filters.matcher(asked)(event) == filters.matches_any(asked, event)
