"""Two wallets that can pay each other, of every kind, behind one small `Rig`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest

from pylon.nostr import nip47
from pylon.wallets.ledger import Ledger
from pylon.wallets.lnbits import Lnbits
from pylon.wallets.nwc import Nwc
from pylon.wallets.phoenixd import Phoenixd
from pylon.wallets.wallet import Wallet
from tests.fakes import lnbits as fake_lnbits
from tests.fakes import phoenixd as fake_phoenixd
from tests.fakes.nwc_service import NwcService, make_pool
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for
from tests.wallets.paying import Purse


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now: float = 1_800_000_000) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Rig:
    """`payer` has money and pays, `payee` makes invoices on `network`. `pass_time(secs)`."""

    payee: Wallet
    payer: Wallet
    network: str
    pass_time: Callable[[float], None]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledgers(openagents, clock):
    """`ledgers(name, **options)` opens the account `name` of one shared file."""
    opened = {}

    def open_account(name="a", **options):
        key = (name.encode() * 32)[:32]
        ledger = Ledger(openagents / "ledger.db", key, openagents / f"{name}.sock", label=name,
                        **{"clock": clock, **options})
        opened[len(opened)] = ledger
        return ledger
    yield open_account
    for ledger in opened.values():
        ledger.close()


def ledger_rig(ledgers, clock, stack, relay=None) -> Rig:
    def turn(secs):
        clock.now += secs
    return Rig(ledgers("b"), ledgers("a"), "regtest", turn)


def phoenixd_rig(ledgers, clock, stack, relay) -> Rig:
    rig = ledger_rig(ledgers, clock, stack)
    for side in ("payee", "payer"):
        server = stack.enter_context(closing(fake_phoenixd.Phoenixd(getattr(rig, side))))
        setattr(rig, side, stack.enter_context(closing(Phoenixd(
            server.url, "regtest", fake_phoenixd.FULL, fake_phoenixd.LIMITED))))
    return rig


def lnbits_rig(ledgers, clock, stack, relay) -> Rig:
    rig = ledger_rig(ledgers, clock, stack)
    keys = f"{fake_lnbits.ADMIN_KEY} {fake_lnbits.INVOICE_KEY}"
    for side in ("payee", "payer"):
        server = stack.enter_context(closing(fake_lnbits.Lnbits(getattr(rig, side))))
        setattr(rig, side, stack.enter_context(closing(Lnbits(server.url, keys, "regtest"))))
    return rig


def nwc_rig(ledgers, clock, stack, relay) -> Rig:
    rig = ledger_rig(ledgers, clock, stack)
    for side in ("payee", "payer"):
        service = stack.enter_context(closing(NwcService(getattr(rig, side), [relay.url])))
        setattr(rig, side, stack.enter_context(closing(connect(service))))
    return rig


def connect(service: NwcService, network: str = "regtest") -> Nwc:
    """The wallet as it is opened: with the service's own words known."""
    wallet = Nwc(nip47.parse_uri(service.uri), network, make_pool)
    try:
        assert wallet.ask_network() == service.network
    except BaseException:
        wallet.close()
        raise
    return wallet


RIGS = {"ledger": ledger_rig, "phoenixd": phoenixd_rig, "lnbits": lnbits_rig, "nwc": nwc_rig}


def wait(secs: float) -> None:
    """Pass real time, where a clock cannot be turned."""
    until = time.time() + secs
    wait_for(lambda: time.time() >= until, secs + 5)


@pytest.fixture(scope="session")
def relay() -> Iterator[LocalRelay]:
    with LocalRelay() as relay:
        yield relay


@pytest.fixture(params=RIGS)
def rig(request, ledgers, clock, relay) -> Iterator[Rig]:
    with ExitStack() as stack:
        ledgers("a").fund(10_000_000)
        yield RIGS[request.param](ledgers, clock, stack, relay)


@pytest.fixture
def purse(home):
    """An agent with 1,000 sats and a scripted wallet that covers them."""
    made = Purse(home)
    made.fund()
    yield made
    made.close()
