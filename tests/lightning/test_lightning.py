"""Jobs for satoshis that cross a channel. Between the tests the two wallets keep their history:
what an earlier Pylon has moved is the owner's own to a later one."""

from __future__ import annotations

import hashlib

import pytest

from pylon.wallets import bolt11
from tests.fakes.logged_backend import answer_to
from tests.waiting import wait_for

pytestmark = [pytest.mark.lightning, pytest.mark.timeout(2400)]     # the first one installs

PRICE_MSATS = 21000


def audit(node) -> str:
    return node.run("wallet", "audit").stdout


def test_sold_to_a_stranger_killed_between_payment_and_result(pair, seller, stranger, backend):
    backend.gate.clear()
    job = stranger.job("a thing worth 21 sats", tags=[["bid", "50000"]])
    invoice = stranger.invoice(job, 30)
    assert invoice.startswith("lnbcrt210n")
    preimage = pair.pay(invoice)
    wanted = bolt11.decode(invoice).payment_hash
    assert hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == wanted
    wait_for(lambda: backend.calls, 90, "the payment to be noticed and the job to run")
    seller.kill()
    backend.gate.set()
    seller.start()
    assert stranger.result(job, 90)["content"] == answer_to("a thing worth 21 sats")
    assert "interrupted" in seller.run("explain", job[:12]).stdout
    assert seller.json("earnings")["summary"]["total_msats"] == PRICE_MSATS
    audit(seller)
    seller.stop()
    assert len({event["id"] for event in stranger.results(job)}) == 1
    assert len({event["id"] for event in stranger.about(job, 7000, "payment-required")}) == 1


def test_paid_while_the_node_is_down_is_served_after_the_start(pair, seller, stranger):
    job = stranger.job("paid in the dark")
    invoice = stranger.invoice(job, 30)
    seller.kill()
    pair.pay(invoice)
    seller.start()
    assert stranger.result(job, 90)["content"] == answer_to("paid in the dark")
    assert seller.json("earnings")["summary"]["total_msats"] == PRICE_MSATS
    audit(seller)


def test_one_pylon_buys_from_another(seller, buyer):
    before = {node: balance(node) for node in (seller, buyer)}
    order = buyer.buy(provider=seller.json("whoami")["npub"], timeout_secs=60)
    ended = buyer.end_of(order, 120)
    assert ended["state"] == "completed" and ended["result"], ended
    assert buyer.paid(order) == PRICE_MSATS
    assert balance(buyer) == before[buyer] - PRICE_MSATS
    assert balance(seller) == before[seller] + PRICE_MSATS
    assert seller.json("earnings")["summary"]["total_msats"] == PRICE_MSATS
    for node in (seller, buyer):
        audit(node)


def test_a_buyer_that_dies_while_paying_has_paid_once(pair, seller, buyer, backend):
    backend.gate.clear()
    order = buyer.buy(provider=seller.json("whoami")["npub"], timeout_secs=120)
    wait_for(lambda: buyer.order(order)["payment"], 60, "the intent to pay")
    buyer.kill()
    buyer.start()
    wait_for(lambda: backend.calls, 120, "the payment to arrive")
    backend.gate.set()
    ended = buyer.end_of(order, 120)
    assert ended["state"] == "completed", ended
    assert seller.json("earnings")["summary"]["total_msats"] == PRICE_MSATS
    for node in (seller, buyer):
        audit(node)


def balance(node) -> int:
    return node.json("wallet", "balance")["wallet_msats"]
