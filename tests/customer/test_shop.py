"""The commands of the socket: arguments of every wrong kind, limits, and following an order."""

import json
import threading

import pytest

from pylon import config as configuration
from pylon.customer import live, shop, show
from pylon.customer.customer import Customer
from pylon.customer.shop import Shop
from pylon.errors import PylonError, Refused, UsageError
from pylon.nostr import keys
from pylon.store import books, providers
from tests.waiting import wait_for

CONFIG = configuration.from_values({"relays": [], "customer": {"max_sats_per_job": 10,
                                                               "daily_limit_sats": 30}})


class Nobody:
    """A directory in which nobody stands."""

    def look(self, kinds, timeout_secs):
        return None

    def found(self, kind, everybody):
        return []


@pytest.fixture
def counter(market):
    return Shop(market.db, market.orders, Nobody(), market.keys, lambda: CONFIG)


@pytest.mark.parametrize("args", [
    {}, {"prompt": 5}, {"prompt": None}, {"prompt": "x", "kind": "5050"},
    {"prompt": "x", "kind": True}, {"prompt": "x", "kind": 5050.0}, {"prompt": "x", "kind": 4999},
    {"prompt": "x", "bid_msats": -1}, {"prompt": "x", "bid_msats": "5"},
    {"prompt": "x", "max_msats": 0, "auto_pay": True}, {"prompt": "x", "params": []},
    {"prompt": "x", "params": {"a": 1}}, {"prompt": "x", "relays": "wss://r"},
    {"prompt": "x", "relays": [1]}, {"prompt": "x", "provider": "nobody"},
    {"prompt": "x", "provider": 5}, {"prompt": "x", "policy": []}, {"prompt": "x", "model": {}},
    {"prompt": "x", "timeout_secs": 0}, {"prompt": "x", "timeout_secs": 10**9},
    {"prompt": "x", "max_tokens": 0}, {"prompt": "x", "output": 1}])
def test_submit_refuses_what_makes_no_sense(counter, market, args):
    with pytest.raises(UsageError):
        shop.submit(counter, args)
    assert market.orders.states()["listening"] == 0


def test_the_configuration_bounds_what_one_order_may_cost(counter):
    with pytest.raises(Refused) as refused:
        shop.submit(counter, {"prompt": "x", "auto_pay": True, "max_msats": 10_001})
    assert refused.value.code == "amount-too-large"
    made = shop.submit(counter, {"prompt": "x", "auto_pay": True})
    assert made["max_msats"] == 10_000
    assert shop.submit(counter, {"prompt": "y"})["max_msats"] == 0


def test_a_persons_terms_have_the_daily_limit(market):
    terms = shop.owner_terms(CONFIG, market.order(market.submit()))
    [cap] = terms.limits.caps
    assert (terms.purpose, cap.code, cap.msats) == ("order", "over-day-limit", 30_000)


@pytest.mark.parametrize("command", [shop.status, shop.cancel, shop.pay])
@pytest.mark.parametrize("wanted", ["", "abc", "zzzz", "0" * 64, 5, None, "%"])
def test_ids_that_name_nothing(counter, command, wanted):
    with pytest.raises(PylonError):
        command(counter, {"id": wanted, "max_msats": 1000})


def test_an_id_that_could_be_several(counter, market, monkeypatch):
    monkeypatch.setattr(show.orders, "find", lambda db, prefix: ["a", "b"])
    with pytest.raises(Refused) as refused:
        shop.status(counter, {"id": "abcd"})
    assert refused.value.code == "ambiguous"


def test_everything_shown_is_json(counter, market, dealer):
    order = market.submit(max_msats=5000, first=True)
    dealer.quote(order, 2000)
    dealer.result(order, "Paris")
    shown = shop.status(counter, {"id": order[:10]})
    assert json.loads(json.dumps(shown)) == shown
    assert shown["payment"]["amount_msats"] == 2000
    assert [one["provider"] for one in shown["providers"]] == [shown["provider"]]
    assert shop.listing(counter, {})["orders"][0]["id"] == order
    assert shop.who(counter, {}) == {"kind": 5050, "providers": []}


def test_follow_ends_with_the_order_and_lets_go(counter, market, dealer):
    order = market.submit(first=True)
    heard = []
    reader = threading.Thread(target=lambda: heard.extend(shop.follow(counter, {"id": order})))
    reader.start()
    wait_for(lambda: len(market.orders._clerk.live[order].listeners) > 1)
    dealer.feedback(order, "partial", content="Par")
    dealer.result(order, "Paris")
    reader.join(5)
    assert [update["event"] for update in heard] == ["state", "partial", "completed"]


def test_follow_of_what_has_ended_is_one_line(counter, market, dealer):
    order = market.submit(first=True)
    dealer.result(order, "Paris")
    assert [u["event"] for u in shop.follow(counter, {"id": order})] == ["state"]


def test_follow_ends_at_its_timeout(counter, market):
    order = market.submit()
    told = list(shop.follow(counter, {"id": order, "timeout_secs": 0}))
    assert [update["event"] for update in told] == ["state", "timeout"]
    assert market.orders._clerk.live[order].listeners == [market.updates.append]


def test_who_comes_late_hears_what_was_said_so_far(counter, market, dealer):
    order = market.submit()
    dealer.feedback(order, "partial", content="The capital")
    dealer.quote(order, 2000)
    market.wait(6)
    told = shop.follow(counter, {"id": order, "timeout_secs": 5})
    assert next(told)["event"] == "state"
    market.settle()
    assert [next(told)["event"], next(told)["event"]] == ["partial", "payment-required"]
    told.close()


def test_a_flood_of_strangers_is_bounded(market, monkeypatch):
    monkeypatch.setattr(live, "MAX_PROVIDERS", 3)
    known, asked = market.dealer(), market.dealer()
    known.result(market.submit("before", provider=known.pubkey), "hello")
    crowd = [market.dealer() for _ in range(9)]
    order = market.submit()
    for one in crowd:
        one.feedback(order, "processing")
    assert len(providers.of_order(market.db, order)) == 6
    known.result(order, "Paris")
    market.wait(6)
    assert market.order(order).result == "Paris"
    targeted = market.submit("again", provider=asked.pubkey)
    for one in crowd:
        one.feedback(targeted, "processing")
    asked.result(targeted, "Madrid")
    assert market.order(targeted).result == "Madrid"


def test_a_provider_that_never_stops_talking_is_cut_short(market, dealer, monkeypatch):
    monkeypatch.setattr(live, "MAX_FEEDBACK", 5)
    order = market.submit(first=True)
    for number in range(20):
        dealer.feedback(order, "partial", content="x" * number)
    assert len(market.told("partial")) < 6
    dealer.result(order, "Paris")
    assert market.order(order).result == "Paris"


def test_lies_fill_neither_journal_nor_memory(market, dealer):
    order = market.submit(provider=dealer.pubkey)
    liar = market.dealer()
    for number in range(30):
        liar.result(order, f"lie {number}")
    assert market.story(order).count("ReplyRefused") == 1


# ---- the facade ---------------------------------------------------------------------------------

@pytest.fixture
def customer(market):
    customer = Customer(market.db, market.keys, CONFIG, market.pool, lambda: None, market.payer)
    yield customer
    customer.stop(5)


def test_each_account_has_its_own_keys_and_terms(market, customer):
    agent = keys.generate()
    account = books.agent_account(agent.npub)
    customer.add_account(account, lambda: agent, lambda order: shop.Terms("infer", "tick-1"))
    for who, key in ((books.OWNER, market.keys), (account, agent)):
        order_id = customer.orders.submit(shop.Draft("x"), key, who)
        order = market.order(order_id)
        assert (order.pubkey, order.account) == (key.pubkey, who)
        assert customer._keys_for(order) is key
    assert customer._terms_for(order).purpose == "infer"


def test_an_account_that_nobody_speaks_for_spends_nothing(market, customer):
    order = market.order(market.submit())
    stranger = order.__class__(**{**{n: getattr(order, n) for n in order.__slots__},
                                  "account": "agent:gone"})
    assert customer._terms_for(stranger).limits.action_msats == 0
    assert customer._keys_for(stranger) is None


def test_start_resumes_and_stop_ends_every_thread(market, customer, dealer):
    order = market.submit(first=True)
    customer.start()
    assert customer.facts()["open"] == 1
    market.orders.stop()
    dealer.result(order, "Paris")
    wait_for(lambda: market.order(order).state == "completed")
    customer.stop(5)
    assert not any(role.alive for role in customer.roles)


def test_every_command_is_served_and_only_looking_is_asking(customer):
    assert set(customer.handlers()) == set(shop.HANDLERS)
    asking = {name for name, (_, asking) in {**customer.handlers(), **customer.streams()}.items()
              if asking}
    assert asking == {"JobStatus", "JobList", "Providers", "JobFollow"}
    assert customer.handlers()["JobList"][0]({}, None) == {"orders": []}
