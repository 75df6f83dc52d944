"""A draft: what is refused before anything is stored or sent, and what is sent."""

import pytest

from pylon.customer import draft
from pylon.customer.draft import Draft
from pylon.errors import Refused, UsageError
from pylon.nostr import keys, nip90

BUYER, SELLER = keys.generate(), keys.generate()


@pytest.mark.parametrize("wish, code", [
    (Draft(""), "empty-prompt"), (Draft(" \n"), "empty-prompt"), (Draft("a\0b"), "not-text"),
    (Draft("\ud800"), "not-text"), (Draft("x" * 10_000_000), "prompt-too-long"),
    (Draft("\u20ac" * 6827), "prompt-too-long"), (Draft("x", kind=1), "bad-kind"),
    (Draft("x", kind=6050), "bad-kind")])
def test_refused(wish, code):
    with pytest.raises(Refused) as refused:
        draft.check(wish)
    assert refused.value.code == code


@pytest.mark.parametrize("wish", [
    Draft("x", policy="dear"), Draft("x", bid_msats=-1), Draft("x", max_msats=-1),
    Draft("x", max_msats=10**19), Draft("x", timeout_secs=0), Draft("x", timeout_secs=10**7),
    Draft("x", max_tokens=0), Draft("x", params={"a b": "c"}), Draft("x", params={"": "c"}),
    Draft("x", params={"a": ""}), Draft("x", params={"a": "b\n"}), Draft("x", model="m\0"),
    Draft("x", params={f"k{n}": "v" for n in range(33)}), Draft("x", relays=["http://x"]),
    Draft("x", relays=["wss://a b"]), Draft("x", relays=["wss://r.example"] * 17)])
def test_makes_no_sense(wish):
    with pytest.raises(UsageError):
        draft.check(wish)


@pytest.mark.parametrize("prompt", [
    "\U0001f600" * 60, "x" * draft.MAX_PROMPT_BYTES,
    "\U0001f600" * (draft.MAX_PROMPT_BYTES // 4), '"\\\n' * 6000])
@pytest.mark.parametrize("encrypt", [False, True])
def test_whatever_is_allowed_fits_an_event(prompt, encrypt):
    wish = Draft(prompt, encrypt=encrypt, model="m")
    draft.check(wish)
    _, event = draft.to_order(wish, BUYER, "owner", None, [SELLER.pubkey], [], 1000)
    assert len(event.to_json().encode()) <= draft.MAX_EVENT_BYTES
    job = nip90.parse_job(event, SELLER)
    assert job.inputs[0][0] == prompt and job.params == {"model": "m"}


def test_the_event_says_what_was_asked():
    wish = Draft("x", 5001, "m", 7, {"top_k": "3"}, "text/plain", 5000, 9000, timeout_secs=60)
    order, event = draft.to_order(wish, BUYER, "owner", "tick-1", [], ["wss://r.example"], 1000)
    job = nip90.parse_job(event, SELLER)
    assert (order.id, order.pubkey, order.details["scope"]) == (event.id, BUYER.pubkey, "tick-1")
    assert (job.kind, job.bid_msats, job.output, job.expires_at) == (5001, 5000, "text/plain", 1060)
    assert job.params == {"model": "m", "max_tokens": "7", "top_k": "3"}
    assert job.provider_pubkeys == [] and job.relays == ["wss://r.example"]


def test_an_encrypted_event_shows_nothing():
    wish = Draft("the secret words", model="secret-model", encrypt=True)
    _, event = draft.to_order(wish, BUYER, "owner", None, [SELLER.pubkey], [], 1000)
    assert "secret" not in event.to_json()
    assert event.first("p") == SELLER.pubkey


def test_the_most_that_is_paid_is_never_above_the_bid():
    for bid, most, limit in ((None, 9000, 9000), (5000, 9000, 5000), (9000, 5000, 5000),
                             (0, 9000, 0), (5000, 0, 0)):
        order, _ = draft.to_order(Draft("x", bid_msats=bid, max_msats=most), BUYER, "owner", None,
                                  [], [], 1000)
        assert order.limit_msats == limit
