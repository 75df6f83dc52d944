"""Orders and dealings in the store: steps, rows that stay, and what is forgotten."""

import pytest

from pylon.customer.draft import Draft, to_order
from pylon.errors import IllegalTransition
from pylon.nostr import keys
from pylon.states import ORDER_EDGES, OrderState
from pylon.store import orders, outbox, providers
from pylon.store.database import Database, ReadOnly

NOW = 1_800_000_000
BUYER, SELLER = keys.generate(), keys.generate()
S = OrderState


@pytest.fixture
def db(home):
    db = Database(home.database)
    yield db
    db.close()


@pytest.fixture
def order(db):
    return new(db)


def new(db, prompt="x", target=None, at=NOW):
    order, event = to_order(Draft(prompt), BUYER, "owner", None, [target] if target else [], [],
                            at)
    orders.submit(db, order, event, at)
    return orders.get(db, order.id)


def step(db, order_id, state):
    with db.transaction(durable=False) as tx:
        orders.advance(tx, order_id, state, NOW)


def test_submit_stores_order_event_and_outbox_together(db):
    order = new(db, target=SELLER.pubkey)
    assert order.state == S.NEW and orders.asked(db, order.id) == {order.id: SELLER.pubkey}
    assert outbox.get(db, orders.ASK, order.id)["expires_at"] == order.deadline_at
    assert [one.provider for one in providers.of_order(db, order.id)] == [SELLER.pubkey]
    assert not orders.reached_a_relay(db, order.id)
    outbox.ack(db, order.id, "wss://r", True, "", NOW)
    assert orders.reached_a_relay(db, order.id)


PATHS = {S.NEW: (), S.SENT: (S.SENT,), S.ACCEPTED: (S.SENT, S.ACCEPTED),
         S.PAID: (S.SENT, S.ACCEPTED, S.PAID), S.COMPLETED: (S.SENT, S.COMPLETED),
         S.FAILED: (S.FAILED,), S.EXPIRED: (S.EXPIRED,), S.CANCELLED: (S.CANCELLED,)}


@pytest.mark.parametrize("old", list(S))
@pytest.mark.parametrize("fresh", list(S))
def test_every_edge_and_no_other(db, order, old, fresh):
    for state in PATHS[old]:
        step(db, order.id, state)
    if fresh in ORDER_EDGES[old] or fresh == old:
        step(db, order.id, fresh)
        assert orders.get(db, order.id).state == fresh
    else:
        with pytest.raises(IllegalTransition):
            step(db, order.id, fresh)
        assert orders.get(db, order.id).state == old


def test_a_quote_stands_as_it_is(db, order):
    with db.transaction(durable=False) as tx:
        providers.touch(tx, order.id, "p", NOW, payment_hash="a", amount_msats=1)
    with pytest.raises(IllegalTransition), db.transaction(durable=False) as tx:
        providers.touch(tx, order.id, "p", NOW, payment_hash="b")


def test_the_first_reason_stands(db, order):
    with db.transaction(durable=False) as tx:
        providers.strike(tx, order.id, "p", "silent", "first", NOW)
        providers.strike(tx, order.id, "p", "provider-error", "second", NOW)
    assert providers.get(db, order.id, "p").code == "silent"


def test_paid_twice_is_noted_once(db, order):
    step(db, order.id, S.SENT)
    with db.transaction(durable=False) as tx:
        providers.touch(tx, order.id, "p", NOW, amount_msats=1000, payment_hash="a")
    orders.accept(db, orders.get(db, order.id), providers.get(db, order.id, "p"), "why", NOW)
    for _ in range(2):
        orders.paid(db, orders.get(db, order.id), 1000, 5, NOW + 1)
    assert providers.get(db, order.id, "p").paid_msats == 1000
    assert db.one("SELECT count(*) AS n FROM journal WHERE type = 'OrderPaid'")["n"] == 1


def test_histories_are_sums_of_rows(db):
    for number, (paid, delivered) in enumerate(((1, 1), (1, 0), (0, 1), (0, 0))):
        order = new(db, f"{number}", at=NOW + number)
        step(db, order.id, S.SENT)
        fields = {"paid_at": NOW + 10, "paid_msats": 1000} if paid else {}
        with db.transaction(durable=False) as tx:
            providers.touch(tx, order.id, "p", NOW, **fields)
            if delivered:
                providers.touch(tx, order.id, "p", NOW, delivered_at=NOW + 14, result="r",
                                result_event_id=f"{number}")
        if delivered:
            orders.complete(db, orders.get(db, order.id), providers.get(db, order.id, "p"),
                            NOW + 14)
        else:
            with db.transaction(durable=False) as tx:
                providers.strike(tx, order.id, "p", "not-delivered", "", NOW)
    found = providers.histories(db)["p"]
    assert (found.asked, found.paid, found.delivered, found.undelivered, found.lost_msats,
            found.failed, found.paid_msats) == (4, 2, 2, 1, 1000, 2, 2000)
    assert found.mean_secs == pytest.approx((4 + 14) / 2)
    assert providers.histories(db, ["q"]) == {}


def test_short_ids(db):
    order = new(db)
    assert orders.find(db, order.id[:6]) == [order.id]
    assert orders.find(db, "zz") == []


def test_newest_first_and_open_ones(db):
    ids = [new(db, f"{n}", at=NOW + n).id for n in range(3)]
    step(db, ids[1], S.FAILED)
    assert [one.id for one in orders.latest(db, 2)] == [ids[2], ids[1]]
    assert [one.id for one in orders.open_orders(db)] == [ids[0], ids[2]]


def test_what_is_forgotten_and_what_money_hangs_on(db):
    plain, paid, young = (new(db, f"{n}", at=NOW + n) for n in range(3))
    for order in (plain, paid):
        step(db, order.id, S.FAILED)
    with db.transaction(durable=False) as tx:
        providers.touch(tx, paid.id, "p", NOW, paid_at=NOW, paid_msats=1)
        assert orders.prune(tx, NOW + 10, NOW + 10, 100) == 1
    assert orders.get(db, plain.id) is None
    assert orders.get(db, paid.id).prompt is None
    assert orders.get(db, young.id).prompt == "2"


def test_the_command_line_reads_beside_the_daemon(db, order, home):
    reader = ReadOnly(home.database)
    assert orders.get(reader, order.id).prompt == "x"
    assert providers.of_order(reader, order.id) == []
    reader.close()
