import pytest

from pylon.errors import ConfigError, InvalidMessage
from pylon.nostr import event as events, nip47
from tests.nostr.conftest import NOW

PUBKEY, SECRET = "ab" * 32, "0f" * 32
URI = f"nostr+walletconnect://{PUBKEY}?relay=wss%3A%2F%2Fr.example%2Fx&secret={SECRET}"


@pytest.mark.parametrize("text", [URI, f" {URI}\n", URI.replace("://", ":"), URI.upper()
                                  .replace("?RELAY=WSS%3A%2F%2FR.EXAMPLE%2FX&SECRET",
                                           "?relay=wss%3A%2F%2Fr.example%2Fx&secret")])
def test_uri(text):
    found = nip47.parse_uri(text)
    assert (found.wallet_pubkey, found.relays, found.secret.hex(), found.lud16) == (
        PUBKEY, ("wss://r.example/x",), SECRET, None)


def test_uri_with_more_relays_and_an_address():
    found = nip47.parse_uri(URI + "&relay=wss://s.example&lud16=a@b.c&other=1")
    assert found.relays == ("wss://r.example/x", "wss://s.example") and found.lud16 == "a@b.c"


@pytest.mark.parametrize("text", [
    "", "https://x", URI.replace("nostr+", ""), URI.replace(PUBKEY, "xyz"),
    URI.replace(f"&secret={SECRET}", ""), URI.replace(SECRET, SECRET[:-2]),
    URI.replace("relay=wss", "relay=http"), f"nostr+walletconnect://{PUBKEY}?secret={SECRET}"])
def test_a_bad_uri_is_told_without_its_secret(text):
    with pytest.raises(ConfigError) as err:
        nip47.parse_uri(text)
    assert SECRET[:8] not in str(err.value)


def test_the_secret_is_not_printed():
    assert SECRET not in repr(nip47.parse_uri(URI)) and "\\x0f" not in repr(nip47.parse_uri(URI))


@pytest.mark.parametrize("encryptions, best", [
    (["nip44_v2", "nip04"], "nip44"), (["nip04"], "nip04"), ([], "nip04"),
    (["nip44_v2"], "nip44")])
def test_info(alice, encryptions, best):
    event = nip47.build_info(alice, ["pay_invoice", "get_balance"], ["payment_received"],
                             encryptions, NOW)
    info = nip47.parse_info(event, alice.pubkey)
    assert info.methods == {"pay_invoice", "get_balance"}
    assert (info.notifications, info.encryption) == ({"payment_received"}, best)


@pytest.mark.parametrize("encryption", ["nip04", "nip44"])
def test_a_call_and_its_answers(alice, bob, encryption):
    call = nip47.build_call(alice, bob.pubkey, "pay_invoice", {"invoice": "lnbc1é"}, encryption,
                            NOW, NOW + 60)
    events.verify(call)
    assert call.kind == 23194 and call.expiration() == NOW + 60 and "lnbc" not in call.content
    assert (call.first("encryption") == "nip44_v2") is (encryption == "nip44")
    found = nip47.parse_call(call, bob)
    assert (found.method, found.params, found.encryption) == (
        "pay_invoice", {"invoice": "lnbc1é"}, encryption)
    answer = nip47.build_response(bob, call, "pay_invoice", {"preimage": "00"}, encryption, NOW)
    read = nip47.parse_response(answer, alice, bob.pubkey)
    assert (read.call_id, read.result_type, read.result, read.error_code) == (
        call.id, "pay_invoice", {"preimage": "00"}, "")
    refusal = nip47.build_response(bob, call, "pay_invoice", None, encryption, NOW,
                                   nip47.INSUFFICIENT_BALANCE, "no money")
    read = nip47.parse_response(refusal, alice, bob.pubkey)
    assert (read.result, read.error_code, read.error_message) == (
        None, "INSUFFICIENT_BALANCE", "no money")


@pytest.mark.parametrize("encryption", ["nip04", "nip44"])
def test_notifications(alice, bob, encryption):
    event = nip47.build_notification(bob, alice.pubkey, "payment_received", {"amount": 5},
                                     encryption, NOW)
    assert event.kind == (23197 if encryption == "nip44" else 23196)
    found = nip47.parse_notification(event, alice, bob.pubkey)
    assert (found.type, found.data) == ("payment_received", {"amount": 5})


def test_nobody_speaks_for_the_wallet(alice, bob, eve):
    """RUSTSEC-2026-0226: wallet events were read without a look at their author."""
    call = nip47.build_call(alice, bob.pubkey, "lookup_invoice", {}, "nip44", NOW)
    forged = nip47.build_response(eve, call, "lookup_invoice", {"settled_at": 1}, "nip44", NOW)
    with pytest.raises(InvalidMessage, match="not by the wallet"):
        nip47.parse_response(forged, alice, bob.pubkey)
    with pytest.raises(InvalidMessage, match="not by the wallet"):
        nip47.parse_notification(nip47.build_notification(
            eve, alice.pubkey, "payment_received", {}, "nip44", NOW), alice, bob.pubkey)
    with pytest.raises(InvalidMessage, match="not by the wallet"):
        nip47.parse_info(nip47.build_info(eve, [], [], [], NOW), bob.pubkey)


def answer(bob, alice, value, tags=None, kind=23195):
    return bob.sign(kind, bob.nip44_encrypt(alice.pubkey, value),
                    [["p", alice.pubkey], ["e", "ab" * 32]] if tags is None else tags, NOW)


@pytest.mark.parametrize("value", [
    "[]", "null", "x", "5", '{"result_type":"x"}', '{"result_type":"x","result":[]}',
    '{"result":null,"error":null}', '{"error":"no"}', '{"error":{}}', '{"error":{"code":5}}',
    '{"error":{"code":""}}', '{"result":{"a":1,"a":2}}', '{"result":{"a":NaN}}', "[" * 2000])
def test_misshapen_answers(alice, bob, value):
    with pytest.raises(InvalidMessage):
        nip47.parse_response(answer(bob, alice, value), alice, bob.pubkey)


def test_answers_to_nothing_or_to_others(alice, bob):
    good = '{"result_type":"x","result":{}}'
    for event in (answer(bob, alice, good, []), answer(bob, alice, good, [["e", "x"]]),
                  answer(bob, alice, good, [["e", "ab" * 32], ["p", bob.pubkey]]),
                  answer(bob, alice, good, kind=23194)):
        with pytest.raises(InvalidMessage):
            nip47.parse_response(event, alice, bob.pubkey)
    assert nip47.parse_response(answer(bob, alice, good, [["e", "ab" * 32]]), alice,
                                bob.pubkey).result == {}


def test_an_unknown_error_is_passed_on_and_cut(alice, bob):
    text = '{"error":{"code":"FEE_LIMIT_EXCEEDED","message":"%s"}}' % ("m" * 5000)
    read = nip47.parse_response(answer(bob, alice, text), alice, bob.pubkey)
    assert read.error_code == "FEE_LIMIT_EXCEEDED" and len(read.error_message) == 500
    text = '{"error":{"code":"%s","message":{"x":"\\ud800"}}}' % ("C" * 100)
    read = nip47.parse_response(answer(bob, alice, text), alice, bob.pubkey)
    assert len(read.error_code) == 64
    read.error_message.encode()


@pytest.mark.parametrize("value", ["{}", '{"method":5}', '{"method":"x","params":[]}', "[]"])
def test_misshapen_calls(alice, bob, value):
    event = alice.sign(23194, alice.nip44_encrypt(bob.pubkey, value),
                       [["p", bob.pubkey], ["encryption", "nip44_v2"]], NOW)
    with pytest.raises(InvalidMessage):
        nip47.parse_call(event, bob)


def test_calls_for_others_or_in_other_ciphers(alice, bob, eve):
    call = nip47.build_call(alice, bob.pubkey, "x", {}, "nip44", NOW)
    with pytest.raises(InvalidMessage):
        nip47.parse_call(call, eve)
    odd = alice.sign(23194, call.content, [["p", bob.pubkey], ["encryption", "rot13"]], NOW)
    with pytest.raises(InvalidMessage):
        nip47.parse_call(odd, bob)


@pytest.mark.parametrize("value", ["{}", '{"notification_type":"x"}', "[]",
                                   '{"notification_type":5,"notification":{}}'])
def test_misshapen_notifications(alice, bob, value):
    with pytest.raises(InvalidMessage):
        nip47.parse_notification(answer(bob, alice, value, kind=23197), alice, bob.pubkey)
