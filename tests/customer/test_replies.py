"""What providers send, held against what was asked."""

import pytest

from pylon.customer import replies
from pylon.customer.draft import Draft, to_order
from pylon.errors import Refused
from pylon.nostr import keys, nip90
from pylon.wallets import bolt11

NOW = 1_800_000_000
BUYER, SELLER, OTHER = keys.generate(), keys.generate(), keys.generate()


def ordered(**wish):
    targets = [wish.pop("target")] if "target" in wish else []
    order, event = to_order(Draft("x", **wish), BUYER, "owner", None, targets, [], NOW)
    return order, event, {event.id: order.target}


def invoice(msats=2000, network="regtest", secs=600, made_at=NOW):
    return bolt11.encode(network, msats, "22" * 32, "x", b"\1" * 32, "11" * 32, made_at, secs)


def feedback(event, status, extra="", content="", amount=None, text=None, encryption="", tags=(),
             who=SELLER):
    return nip90.build_feedback(who, event, status, extra, content, amount, text, encryption, NOW,
                                tags)


def code_of(act, *args):
    with pytest.raises(Refused) as refused:
        act(*args)
    return refused.value.code


@pytest.mark.parametrize("status, content, what", [
    ("payment-required", "", "quote"), ("processing", "", "offer"), ("partial", "so", "partial"),
    ("processing", "so far", "partial"), ("error", "", "error"), ("success", "", "info"),
    ("pong", "", "info"), ("chain-scheduled", "", "info"), ("PAYMENT-REQUIRED", "", "info")])
def test_what_a_status_means(status, content, what):
    order, event, asked = ordered()
    reply = replies.read(feedback(event, status, "", content), order, asked, BUYER, NOW)
    assert (reply.what, reply.provider) == (what, SELLER.pubkey)


def test_a_result():
    order, event, asked = ordered()
    result = nip90.build_result(SELLER, event, "Paris", 2000, invoice(), "", NOW)
    reply = replies.read(result, order, asked, BUYER, NOW)
    assert (reply.what, reply.content, reply.amount_msats) == ("result", "Paris", 2000)


def test_a_message_without_p_is_read():
    """ezdvm sends feedback without a `p` tag."""
    order, event, asked = ordered()
    bare = SELLER.sign(7000, "", [["status", "processing"], ["e", event.id]], NOW)
    assert replies.read(bare, order, asked, BUYER, NOW).what == "offer"


def test_bolt11_in_the_content_is_found():
    order, event, asked = ordered()
    text = invoice()
    old = SELLER.sign(7000, text, [["status", "payment-required"], ["e", event.id],
                                   ["p", BUYER.pubkey], ["amount", "2000"]], NOW)
    assert replies.read(old, order, asked, BUYER, NOW).bolt11 == text


def test_everything_hidden_in_encrypted_feedback_is_found():
    """nostrdvm hides all tags of its feedback in the content."""
    order, event, asked = ordered(target=SELLER.pubkey, encrypt=True)
    hidden = SELLER.nip44_encrypt(BUYER.pubkey, '[["status","payment-required","pay"],'
                                  f'["amount","2000","{invoice()}"]]')
    event = SELLER.sign(7000, hidden, [["e", event.id], ["p", BUYER.pubkey], ["encrypted"]], NOW)
    reply = replies.read(event, order, asked, BUYER, NOW)
    assert (reply.what, reply.amount_msats, reply.bolt11) == ("quote", 2000, invoice())


def test_refused_messages():
    order, event, asked = ordered(target=SELLER.pubkey)

    def code(message, keys=BUYER):
        return code_of(replies.read, message, order, asked, keys, NOW)
    other_order, other_event, _ = ordered(model="m")
    assert code(feedback(other_event, "processing")) == "other-order"
    assert code(feedback(event, "processing", who=OTHER)) == "foreign-author"
    assert code(SELLER.sign(6051, "x", [["e", event.id]], NOW)) == "bad-kind"
    assert code(SELLER.sign(6050, "x", [["e", event.id], ["p", OTHER.pubkey]], NOW)) == "not-for-us"
    assert code(SELLER.sign(6050, " \n", [["e", event.id]], NOW)) == "empty-result"
    assert code(feedback(event, "processing", tags=[["expiration", str(NOW - 1)]])) == "expired"
    assert code(SELLER.sign(7000, "", [["e", event.id]], NOW)) == "unreadable"
    assert code(SELLER.sign(7000, "", [["e", event.id], ["status", "x"], ["amount", "-1"]], NOW)
                ) == "unreadable"
    secret = SELLER.sign(6050, "AgAA", [["e", event.id], ["encrypted"]], NOW)
    assert code(secret) == "unreadable"
    assert code(secret, None) == "no-keys"


def test_in_clear_where_it_was_asked_encrypted():
    order, event, asked = ordered(target=SELLER.pubkey, encrypt=True)
    clear = SELLER.sign(6050, "Paris", [["e", event.id], ["p", BUYER.pubkey]], NOW)
    assert code_of(replies.read, clear, order, asked, BUYER, NOW) == "not-encrypted"
    partial = SELLER.sign(7000, "Par", [["e", event.id], ["status", "partial"]], NOW)
    assert replies.read(partial, order, asked, BUYER, NOW).what == "offer"


def test_what_providers_say_is_cut_and_escaped():
    order, event, asked = ordered()
    reply = replies.read(feedback(event, "error", "\x1b[31m" + "x" * 1000), order, asked, BUYER,
                         NOW)
    assert len(reply.extra) < 300 and "\x1b" not in reply.extra


@pytest.mark.parametrize("text, tag, code", [
    (None, 2000, "no-invoice"), ("lnbcrt1nonsense", 2000, "bad-invoice"),
    (invoice()[:-1] + "q", 2000, "bad-invoice"), (invoice(network="mainnet"), 2000,
                                                  "wrong-network"),
    (invoice(None), 2000, "no-amount"), (invoice(2000), 1000, "wrong-amount"),
    (invoice(1000), 2000, "wrong-amount"), (invoice(secs=29), 2000, "invoice-expired"),
    (invoice(made_at=NOW - 9000), 2000, "invoice-expired"), (invoice(999), 999, "amount-too-small"),
    (invoice(5001), 5001, "amount-too-large"), (invoice(21 * 10**17), None, "amount-too-large")])
def test_quotes_that_are_never_paid(text, tag, code):
    order, event, asked = ordered(max_msats=5000)
    reply = replies.Reply(SELLER.pubkey, "e", event.id, "quote", amount_msats=tag, bolt11=text)
    assert code_of(replies.check_quote, reply, order, "regtest", None, NOW) == code


def test_quotes_that_may_be_paid():
    order, event, asked = ordered(max_msats=5000)
    for tag in (5000, None):
        reply = replies.Reply(SELLER.pubkey, "e", event.id, "quote", amount_msats=tag,
                              bolt11=invoice(5000))
        assert replies.check_quote(reply, order, "regtest", None, NOW).amount_msats == 5000


def test_the_nodes_own_provider_is_not_paid_over_lightning():
    """Trade inside the node needs no invoice; a wallet cannot pay itself."""
    order, event, asked = ordered(max_msats=5000)
    for own, by in ((SELLER.pubkey, SELLER), (None, BUYER)):
        reply = replies.Reply(by.pubkey, "e", event.id, "quote", amount_msats=2000,
                              bolt11=invoice())
        assert code_of(replies.check_quote, reply, order, "regtest", own, NOW) == "own-node"
