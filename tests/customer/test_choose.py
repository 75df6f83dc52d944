"""Single decisions that are worth a name; `test_property` holds the rules on any rows."""

import dataclasses

from pylon.customer import choose
from pylon.customer.choose import Next, View
from pylon.customer.draft import Draft, to_order
from pylon.nostr import keys
from pylon.states import OrderState, PaymentState
from pylon.store.providers import Dealing, History

BUYER = keys.generate()


def order(state=OrderState.SENT, **fields):
    made, _ = to_order(Draft("x", max_msats=fields.pop("max_msats", 5000),
                             policy=fields.pop("policy", "cheap")), BUYER, "owner", None, [], [],
                       0)
    return dataclasses.replace(made, state=state, **fields)


def dealing(provider="a", **fields):
    nothing = {name: None for name in Dealing.__slots__}
    return Dealing(**{**nothing, "order_id": "o", "provider": provider, "source": "relay",
                      "asked_at": 0, "last_at": 0, **fields})


def quote(provider="a", msats=1000, **fields):
    return dealing(provider, quoted_at=1, amount_msats=msats, bolt11="ln", payment_hash=provider,
                   quote_event_id=provider, **{"expires_at": 600, **fields})


def decide(row, *dealings, now=10, payment=None, reached=True, **histories):
    return choose.decide(View(row, list(dealings), payment, reached, now, histories))


def test_a_result_in_hand_with_an_old_invoice_is_no_reason_to_spin():
    """Found by hypothesis: the expiry of a quote that did not matter any more was waited for
    again and again, in the past."""
    in_hand = quote("b", result="x", result_event_id="r", expires_at=5)
    offer = dealing("a", offered_at=0)
    step = decide(order(policy="trusted", target="a"), in_hand, offer)
    assert (step.what, step.until) == (Next.WAIT, 30)


def test_the_quote_that_expires_is_struck_before_it_is_chosen():
    step = decide(order(), quote(expires_at=29))
    assert (step.what, step.code) == (Next.STRIKE, "invoice-expired")


def test_a_known_thief_is_not_paid_unless_asked_by_name():
    thief = History("a", undelivered=1)
    assert decide(order(), quote(), a=thief).what == Next.WAIT
    assert decide(order(target="a"), quote(), a=thief).what == Next.ACCEPT


def test_of_two_at_one_price_the_more_reliable():
    step = decide(order(), quote("a"), quote("b"), b=History("b", delivered=3))
    assert step.dealing.provider == "b"


def test_free_with_the_result_in_hand_beats_free_that_still_works():
    step = decide(order(), dealing("a", offered_at=1, last_at=9),
                  dealing("b", result="x", result_event_id="r"))
    assert (step.what, step.dealing.provider) == (Next.DELIVER, "b")


def test_the_deadline_never_ends_what_is_being_paid():
    for state in (PaymentState.RESERVED, PaymentState.SENT, PaymentState.UNKNOWN):
        step = decide(order(OrderState.ACCEPTED, provider="a", tries=1), quote(), now=99_999,
                      payment=state)
        assert (step.what, step.until) == (Next.WAIT, None)


def test_nothing_is_paid_after_the_deadline():
    step = decide(order(OrderState.ACCEPTED, provider="a", tries=1), quote(expires_at=9000),
                  now=500)
    assert step.what == Next.FALL_BACK


def test_a_provider_that_said_error_meanwhile_is_not_paid():
    struck = quote(code="provider-error", reason="broken")
    assert decide(order(OrderState.ACCEPTED, provider="a", tries=1), struck).what == Next.FALL_BACK


def test_a_paid_provider_has_the_whole_time_again():
    row = order(OrderState.PAID, provider="a", tries=1)
    paid = quote(paid_at=110)
    assert decide(row, paid, now=200).until == 230
    assert decide(row, paid, now=230).what == Next.EXPIRE


def test_a_late_result_counts_from_whom_we_had_dealt_with_only():
    row = order(OrderState.EXPIRED, ended_at=120)
    late = dealing("a", asked_at=50, result="x", result_event_id="r")
    stranger = dealing("b", asked_at=130, result="x", result_event_id="r")
    assert decide(row, late).what == Next.DELIVER
    assert decide(row, stranger).what == Next.WAIT
    assert decide(row, quote(result="x", result_event_id="a", asked_at=50)).what == Next.WAIT
