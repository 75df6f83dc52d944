"""The contract of all wallets, held by a real LNbits and by Alby's NWC service before it."""

from contextlib import ExitStack, closing

import pytest

from pylon.crypto import secp
from pylon.errors import WalletDenied
from pylon.nostr import nip47
from pylon.wallets import bolt11
from pylon.wallets.lnbits import Lnbits
from pylon.wallets.nwc import Nwc
from tests.fakes.nwc_service import make_pool
from tests.parts.wallets import LnbitsServer, NwcService
from tests.wallets import test_contract
from tests.wallets.conftest import Rig, wait

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
globals().update({name: test for name, test in vars(test_contract).items()
                  if name.startswith("test_")})

SATS = 100_000


@pytest.fixture(scope="session")
def lnbits_server():
    with LnbitsServer() as server:
        yield server


@pytest.fixture(params=["lnbits", "nwc"])
def rig(request, lnbits_server, relay):
    with ExitStack() as stack:
        sides = []
        for keys in (lnbits_server.wallet("payee"), lnbits_server.wallet("payer", SATS)):
            if request.param == "lnbits":
                wallet = Lnbits(lnbits_server.url, keys.file_text, "mainnet")
            else:
                service = stack.enter_context(NwcService(relay.url, lnbits_server, keys))
                wallet = Nwc(nip47.parse_uri(service.uri), "mainnet", make_pool)
            sides.append(stack.enter_context(closing(wallet)))
            assert wallet.ask_network() == "mainnet"
        yield Rig(*sides, "mainnet", wait)


def test_a_wrong_key_is_denied(lnbits_server):
    keys = lnbits_server.wallet("other")
    made = Lnbits(lnbits_server.url, keys.file_text, "mainnet").make_invoice(1000, "x", 600, "")
    stranger = Lnbits(lnbits_server.url, "f" * 32, "mainnet")
    for call in (stranger.balance, stranger.history, lambda: stranger.lookup(made.payment_hash),
                 lambda: stranger.lookup("ab" * 32),
                 lambda: stranger.lookup_payment(made.payment_hash),
                 lambda: stranger.make_invoice(1000, "x", 600, "")):
        with pytest.raises(WalletDenied):
            call()


def test_the_invoice_key_receives_and_cannot_pay(lnbits_server):
    rich, poor = lnbits_server.wallet("rich", SATS), lnbits_server.wallet("poor")
    made = Lnbits(lnbits_server.url, poor.file_text, "mainnet").make_invoice(1000, "x", 600, "")
    wallet = Lnbits(lnbits_server.url, rich.invoice, "mainnet")
    with pytest.raises(WalletDenied):
        wallet.pay(made.bolt11, 1000, 10_000)
    assert wallet.balance() == SATS * 1000


def test_our_invoices_are_read_by_another_decoder(lnbits_server):
    """LNbits uses PyPI's bolt11; what both read is the same."""
    key = bytes(range(1, 33))
    for network, amount in (("mainnet", 21_000), ("regtest", 1), ("testnet", 10**11),
                            ("signet", 123_456_789_000)):
        text = bolt11.encode(network, amount, "ab" * 32, "täglich", key, "cd" * 32, 1_700_000_000,
                             1234, 40)
        read = lnbits_server.decode(text)
        assert read["payment_hash"] == "ab" * 32 and read["payment_secret"] == "cd" * 32
        assert (read["amount_msat"], read["description"]) == (amount, "täglich")
        assert (read["date"], read["expiry"]) == (1_700_000_000, 1234)
        assert read["payee"] == secp.pubkey_compressed(key).hex()
        assert read["min_final_cltv_expiry"] == 40
