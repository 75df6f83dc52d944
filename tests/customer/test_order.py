"""The way of one order, step by step, with every party at the table."""

import hashlib

import pytest

from pylon.errors import Refused, WalletUnreachable
from pylon.nostr import nip90
from pylon.store import books, orders, providers
from pylon.store.spending import Cap, Limits
from pylon.wallets import bolt11


def test_a_free_result_is_taken_when_the_time_for_quotes_is_over(market, dealer):
    order = market.submit()
    dealer.result(order, "Paris")
    assert market.order(order).state == "sent"
    market.wait(6)
    done = market.order(order)
    assert (done.state, done.result, done.provider) == ("completed", "Paris", dealer.pubkey)
    assert market.spent() == 0
    assert market.told("completed")[0]["result"] == "Paris"


def test_first_takes_the_first_good_answer_at_once(market, dealer):
    order = market.submit(first=True)
    dealer.result(order, "Paris")
    assert market.order(order).state == "completed"


def test_a_paid_order_from_quote_to_result(market, dealer):
    order = market.submit(max_msats=5000, first=True)
    dealer.quote(order, 2000)
    assert market.order(order).state == "paid"
    assert market.spent() == 2000
    dealer.result(order, "Paris")
    done = market.order(order)
    assert (done.state, done.result) == ("completed", "Paris")
    assert market.story(order) == [
        "OrderSubmitted", "OrderSent", "QuoteReceived", "QuoteChosen", "OrderPaid",
        "ResultReceived", "OrderCompleted"]
    assert books.balance(market.db, "reserved") == 0
    payment = market.payment(order)
    assert (payment.state, payment.counterparty, payment.scope) == (
        "succeeded", dealer.pubkey, order)


def test_stored_and_subscribed_before_sent(market, dealer):
    """An answer that is quicker than the relay's own OK finds the order."""
    order = market.submit(sent=False, first=True)
    assert market.order(order).state == "new"
    assert market.pool.subs
    dealer.result(order, "Paris")
    assert market.order(order).state == "completed"


def test_nothing_is_paid_without_the_owners_word(market, dealer):
    order = market.submit(first=True)
    text = dealer.quote(order, 2000)
    assert market.order(order).state == "sent"
    assert market.spent() == 0
    assert market.told("payment-required")[0]["bolt11"] == text
    market.wait(121)
    assert (market.order(order).state, market.order(order).code) == ("expired", "not-authorised")
    assert market.spent() == 0


def test_the_owner_allows_it_afterwards(market, dealer):
    order = market.submit()
    dealer.quote(order, 2000)
    market.wait(100)
    market.orders.authorise(order, 2000)
    market.settle()
    assert (market.order(order).state, market.spent()) == ("paid", 2000)


def test_an_order_that_was_paid_by_hand_is_delivered(market, dealer):
    order = market.submit()
    text = dealer.quote(order, 2000)
    market.wallet.pay(text, 2000, 0)
    dealer.result(order, "Paris")
    market.wait(6)
    assert (market.order(order).state, market.spent()) == ("completed", 2000)


def test_pay_after_the_work(market, dealer):
    """NIP-90 lets a provider send the result first, and its price with it."""
    order = market.submit(max_msats=5000, first=True)
    dealer.result(order, "Paris", 3000, dealer.invoice(3000))
    assert (market.order(order).state, market.spent()) == ("completed", 3000)
    assert "OrderPaid" in market.story(order)


def test_pay_after_the_work_too_dear_is_neither_paid_nor_taken(market, dealer):
    order = market.submit(max_msats=2000, first=True)
    dealer.result(order, "Paris", 3000, dealer.invoice(3000))
    market.wait(121)
    assert (market.order(order).state, market.order(order).code) == (
        "expired", "amount-too-large")
    assert market.spent() == 0


def test_the_cheapest_of_several_is_paid(market):
    dear, cheap = market.dealer(), market.dealer()
    order = market.submit(max_msats=9000)
    dear.quote(order, 5000)
    cheap.quote(order, 3000)
    assert market.spent() == 0
    market.wait(6)
    assert (market.order(order).provider, market.spent()) == (cheap.pubkey, 3000)
    chosen = next(row for row in market.db.query(
        "SELECT data FROM journal WHERE type = 'QuoteChosen'"))
    assert "cheap: best of 2; 3 sats" in chosen["data"]


def test_free_beats_cheap_and_falls_back_to_it(market):
    """A provider that works for nothing is waited for, though not for ever."""
    idle, seller = market.dealer(), market.dealer()
    order = market.submit(max_msats=9000)
    idle.feedback(order, "processing")
    seller.quote(order, 3000)
    market.wait(6)
    assert market.order(order).state == "sent"
    market.wait(30)
    assert (market.order(order).provider, market.spent()) == (seller.pubkey, 3000)


def test_policy_free_pays_nobody(market, dealer):
    order = market.submit(policy="free", max_msats=9000)
    dealer.quote(order, 2000)
    market.wait(121)
    assert (market.order(order).state, market.spent()) == ("expired", 0)


def test_policy_trusted_takes_only_whom_it_knows(market):
    known, stranger = market.dealer(), market.dealer()
    first = market.submit(first=True)
    known.result(first, "Paris")
    order = market.submit("And of Spain?", policy="trusted", max_msats=9000)
    stranger.result(order, "a guess")
    stranger.quote(order, 1000)
    market.wait(6)
    assert market.order(order).state == "sent"
    known.quote(order, 5000)
    assert (market.order(order).provider, market.spent()) == (known.pubkey, 5000)


def test_policy_fast_takes_whom_it_knows_to_be_fast(market):
    fast, slow = market.dealer(), market.dealer()
    for dealer, secs in ((fast, 2), (slow, 60)):
        order = market.submit(f"{secs}", provider=dealer.pubkey)
        market.wait(secs)
        dealer.result(order)
    order = market.submit(policy="fast", max_msats=9000)
    slow.quote(order, 1000)
    fast.quote(order, 4000)
    market.wait(6)
    assert market.order(order).provider == fast.pubkey


def test_a_failed_payment_falls_over_to_the_next_provider(market):
    broken, good = market.dealer(), market.dealer()
    order = market.submit(max_msats=9000)
    text = broken.quote(order, 1000)
    good.quote(order, 2000)
    broken.wallet.cancel(bolt11.decode(text).payment_hash)
    market.wait(6)
    assert (market.order(order).state, market.order(order).provider) == ("paid", good.pubkey)
    assert market.dealing(order, broken).code == "payment-failed"
    good.result(order, "Paris")
    assert market.spent() == 2000
    states = [row["state"] for row in market.db.query("SELECT state FROM payments ORDER BY id")]
    assert states == ["failed", "succeeded"]


def test_an_unknown_payment_is_waited_for_and_nobody_else_is_paid(market, monkeypatch):
    slow, other = market.dealer(), market.dealer()
    order = market.submit(max_msats=9000)
    slow.quote(order, 1000)
    other.quote(order, 2000)
    pay = market.wallet.pay

    def pays_and_says_nothing(*args):
        pay(*args)
        raise WalletUnreachable("timeout")
    monkeypatch.setattr(market.wallet, "pay", pays_and_says_nothing)
    monkeypatch.setattr(market.wallet, "lookup_payment",
                        lambda h: (_ for _ in ()).throw(WalletUnreachable("timeout")))
    market.wait(6)
    market.wait(500)
    assert (market.order(order).state, market.payment(order).state) == ("accepted", "unknown")
    monkeypatch.undo()
    market.clock.secs += 400
    market.reconcile()
    assert market.order(order).state == "paid"
    slow.result(order, "Paris")
    assert (market.order(order).state, market.spent()) == ("completed", 1000)


def test_held_money_is_taken_after_the_delivery(market, dealer):
    """Escrow: the result comes while the payment is still open; its end is written down later."""
    preimage = b"\7" * 32
    order = market.submit(max_msats=9000, first=True)
    dealer.quote(order, 2000, dealer.invoice(2000, hashlib.sha256(preimage).hexdigest()))
    assert (market.order(order).state, market.payment(order).state) == ("accepted", "unknown")
    dealer.result(order, "Paris")
    assert market.order(order).state == "completed"
    assert market.dealing(order, dealer).paid_at is None
    dealer.wallet.settle(preimage.hex())
    market.wait(2)
    market.reconcile()
    assert market.dealing(order, dealer).paid_msats == 2000
    assert market.story(order)[-1] == "OrderPaid"


def test_held_money_that_goes_back_costs_nothing(market, dealer):
    preimage = b"\7" * 32
    order = market.submit(max_msats=9000, first=True)
    text = dealer.invoice(2000, hashlib.sha256(preimage).hexdigest())
    dealer.quote(order, 2000, text)
    market.wait(200)
    assert market.order(order).state == "accepted"
    dealer.wallet.cancel(bolt11.decode(text).payment_hash)
    market.reconcile()
    assert (market.order(order).state, market.order(order).code) == ("expired", "payment-failed")
    assert market.spent() == 0


def test_the_daily_limit_of_a_person(market, dealer):
    market.limits = Limits(caps=(Cap("over-day-limit", 25_000, purposes=("order",)),))
    first = market.submit(max_msats=9000, first=True)
    dealer.quote(first, 5000)
    assert market.order(first).state == "paid"
    second = market.submit("again", max_msats=90_000, first=True)
    dealer.quote(second, 12_000)
    assert (market.order(second).state, market.order(second).code) == (
        "failed", "over-day-limit")
    assert market.spent() == 5000


def test_no_funds_ends_the_order_with_the_reason(market, dealer):
    market.limits = Limits()
    order = market.submit(max_msats=90_000_000, first=True)
    dealer.quote(order, 50_000_000)
    assert (market.order(order).state, market.order(order).code) == ("failed", "no-funds")
    assert market.spent() == 0


def test_an_invoice_given_to_two_orders_is_paid_for_one(market, dealer):
    text = dealer.invoice(2000)
    for prompt, state in (("one", "paid"), ("two", "sent")):
        order = market.submit(prompt, max_msats=9000, first=True)
        dealer.quote(order, 2000, text)
        assert market.order(order).state == state
    assert market.dealing(order, dealer).code == "invoice-taken"
    assert market.spent() == 2000


def test_e71_money_taken_and_nothing_delivered_is_recorded_shown_and_avoided(market):
    thief, honest = market.dealer(), market.dealer()
    order = market.submit(max_msats=9000, first=True)
    thief.quote(order, 2000)
    market.wait(119)
    assert market.order(order).state == "paid"
    market.wait(10)
    lost = market.order(order)
    assert (lost.state, lost.code) == ("expired", "not-delivered")
    history = providers.histories(market.db)[thief.pubkey]
    assert (history.undelivered, history.lost_msats, history.delivered) == (1, 2000, 0)
    again = market.submit("again", max_msats=9000)
    thief.quote(again, 1000)
    honest.quote(again, 5000)
    market.wait(6)
    assert market.order(again).provider == honest.pubkey
    assert market.spent() == 7000


def test_a_paid_provider_that_says_error_owes_us(market, dealer):
    order = market.submit(max_msats=9000, first=True)
    dealer.quote(order, 2000)
    dealer.feedback(order, "error", "backend: out of order")
    failed = market.order(order)
    assert (failed.state, failed.code) == ("failed", "not-delivered")
    assert "out of order" in failed.error_message
    assert providers.histories(market.db)[dealer.pubkey].undelivered == 1


def test_a_late_result_of_a_paid_order_is_taken(market, dealer):
    order = market.submit(max_msats=9000, first=True)
    dealer.quote(order, 2000)
    market.wait(130)
    assert market.order(order).state == "expired"
    market.wait(3600)
    dealer.result(order, "Paris, at last")
    assert market.order(order).state == "completed"
    assert providers.histories(market.db)[dealer.pubkey].undelivered == 0


def test_cancel_tells_the_providers_and_stops_listening(market, dealer):
    order = market.submit()
    dealer.feedback(order, "processing")
    market.orders.cancel(order)
    assert market.order(order).state == "cancelled"
    row = market.db.one("SELECT event_json FROM outbox WHERE purpose = 'order-cancel'")
    assert '"kind":5,' in row["event_json"] and order in row["event_json"]
    assert not market.pool.subs
    dealer.result(order)
    assert market.order(order).result is None


def test_cancel_is_refused_once_money_is_promised(market, dealer):
    order = market.submit(max_msats=9000, first=True)
    dealer.quote(order, 2000)
    with pytest.raises(Refused) as refused:
        market.orders.cancel(order)
    assert refused.value.code == "being-paid"


def test_partial_answers_come_as_they_are_made(market, dealer):
    order = market.submit(first=True)
    for text in ("The", "The capital", "The capital is Paris"):
        dealer.feedback(order, "partial", content=text)
    assert [u["text"] for u in market.told("partial")] == ["The", " capital", " is Paris"]
    dealer.result(order, "The capital is Paris.")
    assert market.order(order).state == "completed"


def test_partial_answers_in_pieces_and_of_one_speaker_only(market):
    one, two = market.dealer(), market.dealer()
    order = market.submit()
    one.feedback(order, "partial", content="The ")
    two.feedback(order, "partial", content="NOISE")
    one.feedback(order, "partial", content="capital")
    assert "".join(u["text"] for u in market.told("partial")) == "The capital"


def test_an_encrypted_order_from_end_to_end(market, dealer):
    order = market.submit(provider=dealer.pubkey, encrypt=True, max_msats=9000)
    event = market.event(order)
    assert "France" not in event.to_json()
    dealer.quote(order, 2000, encryption="nip44")
    dealer.feedback(order, "processing", "warming up", encryption="nip44")
    dealer.result(order, "Paris", encryption="nip44")
    assert (market.order(order).state, market.order(order).result) == ("completed", "Paris")


def test_an_encrypted_order_without_a_provider_asks_one_after_the_other(market):
    silent, dear, good = market.dealer(), market.dealer(), market.dealer()
    market.targets = [silent.pubkey, dear.pubkey, good.pubkey]
    order = market.submit(encrypt=True, max_msats=4000)
    market.wait(6)

    def event_for(dealer):
        return next(e for e, p in orders.asked(market.db, order).items() if p == dealer.pubkey)
    second = event_for(dear)
    dear.quote(second, 9000, encryption="nip44")
    third = event_for(good)
    good.quote(third, 3000, encryption="nip44")
    good.result(third, "Paris", encryption="nip44")
    assert (market.order(order).state, market.spent()) == ("completed", 3000)
    assert market.dealing(order, silent).code == "silent"


def test_no_provider_for_an_encrypted_order_is_said_before_anything_is_sent(market):
    with pytest.raises(Refused) as refused:
        market.submit(encrypt=True)
    assert refused.value.code == "no-provider"
    assert not orders.latest(market.db, 10)


def test_a_targeted_order_ends_with_its_providers_error(market, dealer):
    order = market.submit(provider=dealer.pubkey)
    dealer.feedback(order, "error", "queue-full: come back later")
    failed = market.order(order)
    assert (failed.state, failed.code) == ("failed", "provider-error")
    assert "queue-full" in failed.error_message


def test_no_relay_takes_the_order(market):
    order = market.submit(sent=False)
    market.wait(121)
    assert (market.order(order).state, market.order(order).code) == ("failed", "no-relay")


def test_nobody_answers(market):
    order = market.submit()
    market.wait(121)
    assert (market.order(order).state, market.order(order).code) == ("expired", "no-answer")
    assert not market.pool.subs


def test_the_same_words_twice_in_a_second_are_two_orders(market, dealer):
    one, two = market.submit(first=True), market.submit(first=True)
    assert one != two
    dealer.result(one, "1")
    dealer.result(two, "2")
    assert (market.order(one).result, market.order(two).result) == ("1", "2")


def test_a_step_of_the_wall_clock_ends_nothing(market, dealer):
    order = market.submit(max_msats=9000)
    market.clock.step = 86400
    market.wait(3)
    assert market.order(order).state == "sent"
    market.clock.step = -86400
    market.wait(2)
    dealer.result(order)
    assert market.order(order).state == "completed"


def test_restart_in_every_state(market, dealer):
    order = market.submit(max_msats=9000, first=True)
    market.crash()
    dealer.quote(order, 2000)
    assert market.order(order).state == "paid"
    market.crash()
    assert market.spent() == 2000
    dealer.result(order, "Paris")
    assert market.order(order).state == "completed"
    market.crash()
    assert not market.pool.subs and market.spent() == 2000


def test_a_result_of_last_week_is_fetched(market, dealer):
    """The order ended without one; another process asks the relays again, days later."""
    order = market.submit()
    dealer.feedback(order, "processing")
    event = market.event(order)
    market.wait(200)
    assert market.order(order).state == "expired"
    market.wait(3 * 86400)
    seen = []
    market.orders.follow(order, seen.append, fetch_secs=10)
    market.bring(nip90.build_result(dealer.keys, event, "Paris", None, None, "",
                                    market.clock.now()))
    assert market.order(order).result == "Paris"
    assert seen[-1]["event"] == "completed"


def test_fetching_ends(market, dealer):
    order = market.submit()
    market.wait(200)
    seen = []
    market.orders.follow(order, seen.append, fetch_secs=10)
    assert market.pool.subs
    market.wait(11)
    assert seen == [{"event": "ended", "id": order}]
    assert not market.pool.subs


def test_too_many_at_once(market, monkeypatch):
    monkeypatch.setattr("pylon.customer.order.MAX_OPEN", 2)
    market.submit("1"), market.submit("2")
    with pytest.raises(Refused) as refused:
        market.submit("3")
    assert refused.value.code == "too-many-orders"


def test_private_relays_are_refused(market):
    with pytest.raises(Refused) as refused:
        market.submit(relays=["ws://private.example"])
    assert refused.value.code == "no-relay"
