"""Jobs, feedback, results: section C of the catalogue, as far as it is about reading."""

import json

import pytest
from hypothesis import given, settings, strategies as st

from pylon.errors import InvalidMessage, Refused, UsageError
from pylon.nostr import event as events, nip90
from pylon.nostr.keys import Keys
from pylon.units import MAX_MSATS
from tests.nostr.conftest import NOW

ALICE, BOB, EVE = (Keys(bytes(31) + bytes([n])) for n in (1, 2, 3))
ENCRYPTIONS = ["", "nip04", "nip44"]
EMOJI = "\U0001f600\U0001f468\u200d\U0001f469é漢"


def job(tags, content="", kind=5050):
    return nip90.parse_job(ALICE.sign(kind, content, tags, NOW), BOB)


def encrypted(text, encryption, keys=ALICE, to=BOB):
    seal = keys.nip04_encrypt if encryption == "nip04" else keys.nip44_encrypt
    return seal(to.pubkey, text)


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
def test_what_a_customer_builds_a_provider_reads(encryption):
    event = nip90.build_request(
        ALICE, 5050, [("what?", "text", None, None), ("ab" * 32, "job", "wss://r.x", "ctx")],
        {"model": "m", "max_tokens": "5"}, 21000, ["wss://a.example"], BOB.pubkey, encryption,
        "text/plain", NOW)
    events.verify(event)
    found = nip90.parse_job(event, BOB)
    assert found.inputs == [("what?", "text", None, None), ("ab" * 32, "job", "wss://r.x", "ctx")]
    assert found.params == {"model": "m", "max_tokens": "5"}
    assert (found.output, found.bid_msats, found.relays, found.provider_pubkeys) == (
        "text/plain", 21000, ["wss://a.example"], [BOB.pubkey])
    assert (found.encryption, found.kind, found.expires_at) == (encryption, 5050, None)
    if encryption:
        assert "what?" not in event.to_json() and not event.all("i") and not event.all("param")


def test_a_bare_job():
    event = nip90.build_request(ALICE, 5050, [("hi",)], {}, None, [], None, "", None, NOW)
    assert event.tags == [["i", "hi"]]
    found = nip90.parse_job(event, BOB)
    assert found.inputs == [("hi", "text", None, None)]
    assert (found.bid_msats, found.output, found.relays, found.provider_pubkeys) == (
        None, None, [], [])


def test_more_tags_of_a_customer():
    event = nip90.build_request(ALICE, 5050, [("hi",)], {}, None, [], None, "", None, NOW,
                                extra_tags=[("expiration", str(NOW + 60))])
    assert nip90.parse_job(event, BOB).expires_at == NOW + 60


def test_an_encrypted_job_needs_a_provider():
    with pytest.raises(UsageError):
        nip90.build_request(ALICE, 5050, [("hi",)], {}, None, [], None, "nip44", None, NOW)


@pytest.mark.parametrize("tag", [["i", "x"], ["i", "x", ""], ["i", "x", "text"],
                                 ["i", "x", "prompt"], ["i", "x", "text", "", ""]])
def test_ways_to_write_a_text_input(tag):
    assert job([tag]).inputs == [("x", "text", None, None)]


@pytest.mark.parametrize("type_", ["url", "event", "job"])
def test_c39_other_input_types_are_told_apart(type_):
    assert job([["i", "x", type_, "wss://r", "m"]]).inputs == [("x", type_, "wss://r", "m")]


def test_c39_no_input_fifty_inputs_unknown_input():
    assert job([["param", "model", "m"]]).inputs == []
    with pytest.raises(Refused) as err:
        job([["i", "x", "text"]] * 50)
    assert err.value.code == "too-large"
    with pytest.raises(Refused) as err:
        job([["i", "x", "blob"]])
    assert err.value.code == "unsupported-input"
    with pytest.raises(InvalidMessage):
        job([["i"]])


def test_the_prompt_may_stand_in_the_content():
    assert job([], "hi there").inputs == [("hi there", "text", None, None)]
    assert job([["i", "x"]], "not this").inputs == [("x", "text", None, None)]
    assert job([], "  \n").inputs == []


@pytest.mark.parametrize("encryption", ["nip04", "nip44"])
@pytest.mark.parametrize("text, inputs, params", [
    ("plain prompt", [("plain prompt", "text", None, None)], {}),
    ('[["i","x","text"],["param","top-p","0.5"]]', [("x", "text", None, None)], {"top_p": "0.5"}),
    ("[INST] no json", [("[INST] no json", "text", None, None)], {}),
    ('{"a":1}', [('{"a":1}', "text", None, None)], {}), ("5", [("5", "text", None, None)], {})])
def test_what_may_be_encrypted(encryption, text, inputs, params):
    found = job([["p", BOB.pubkey], ["encrypted"]], encrypted(text, encryption))
    assert (found.inputs, found.params, found.encryption) == (inputs, params, encryption)


@pytest.mark.parametrize("tag, found", [
    (["param", "top-p", "0.9"], {"top_p": "0.9"}), (["param", "Top_K", "5"], {"top_k": "5"}),
    (["param", "range", "1", "5"], {"range": "1,5"}), (["param", "model"], {}), (["param"], {}),
    (["param", " max-tokens ", ""], {"max_tokens": ""})])
def test_parameters(tag, found):
    assert job([["i", "x"], tag]).params == found


def test_of_a_parameter_given_twice_the_first_counts():
    assert job([["param", "top-k", "1"], ["param", "top_k", "2"]]).params == {"top_k": "1"}


def test_parameters_have_limits():
    for tags, code in (([["param", "x" * 65, "1"]], "bad-param"),
                       ([["param", "x", "1" * 1025]], "bad-param"),
                       ([["param", f"x{n}", "1"] for n in range(33)], "too-large")):
        with pytest.raises(Refused) as err:
            job(tags)
        assert err.value.code == code


@pytest.mark.parametrize("bid, msats", [("0", 0), ("1000", 1000), ("", None),
                                        ("9" * 18, 10**18 - 1)])
def test_bid(bid, msats):
    assert job([["i", "x"], ["bid", bid]]).bid_msats == msats


@pytest.mark.parametrize("bid", ["-1", "1.5", "1e9", "1_000", "\u0661\u0662", " 5", "5 sats",
                                 str(MAX_MSATS + 1), "9" * 40])
def test_c42_numbers_are_plain(bid):
    with pytest.raises(InvalidMessage):
        job([["bid", bid]])


@pytest.mark.parametrize("kind", [1, 4999, 6000, 6050, 7000])
def test_other_kinds_are_no_jobs(kind):
    with pytest.raises(InvalidMessage):
        job([["i", "x"]], kind=kind)


def test_c37_targets_are_read():
    assert job([["p", EVE.pubkey], ["p", "rubbish"], ["p"]]).provider_pubkeys == [EVE.pubkey]


def test_c48_a_hostile_relays_tag_is_bounded():
    found = job([["relays", *(f"wss://r{n}.example" for n in range(500))]])
    assert len(found.relays) == 32
    assert job([["relays", "http://x", "", "wss://a b", "file:///etc/passwd", "wss://ok.example",
                 "wss://ok.example", "wss://" + "x" * 300]]).relays == ["wss://ok.example"]


BAD_CONTENT = {
    "nothing": "", "text": "hello", "wrong key": encrypted("x", "nip44", EVE, EVE),
    "wrong key (NIP-04)": encrypted("a longer prompt", "nip04", EVE, EVE),
    "iv of 3 bytes": encrypted("x", "nip04").partition("?iv=")[0] + "?iv=AAAA",
    "many iv": encrypted("x", "nip04") + "?iv=" + encrypted("x", "nip04"),
    "bent": encrypted("x", "nip44")[:-8] + "AAAAAAA=", "short": "Ag==", "huge": "A" * 60_000}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_c46_whatever_cannot_be_decrypted_fails_alike(name):
    with pytest.raises(InvalidMessage, match="^cannot decrypt$"):
        job([["p", BOB.pubkey], ["encrypted"]], BAD_CONTENT[name])


@pytest.mark.parametrize("text", ["[1]", "[[]]", '[["i",5]]', '[["i","\\ud800"]]', "[null]",
                                  json.dumps([["t"]] * 201)])
@pytest.mark.parametrize("encryption", ["nip04", "nip44"])
def test_hidden_tags_are_tags(encryption, text):
    with pytest.raises(InvalidMessage):
        job([["p", BOB.pubkey], ["encrypted"]], encrypted(text, encryption))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text(max_size=10), min_size=1, max_size=4), max_size=8),
       st.text(max_size=30))
def test_rubbish_is_refused_or_read(tags, content):
    names = ("i", "param", "bid", "relays", "p", "encrypted", "output", "expiration")
    tags = [[names[n % len(names)], *tag[1:]] for n, tag in enumerate(tags)]
    try:
        job(tags, content)
    except (InvalidMessage, Refused):
        return


def test_c40_emoji_survive_whole():
    for encryption in ENCRYPTIONS:
        event = nip90.build_request(ALICE, 5050, [(EMOJI * 50,)], {}, None, [], BOB.pubkey,
                                    encryption, None, NOW)
        assert nip90.parse_job(event, BOB).inputs[0][0] == EMOJI * 50
        result = nip90.build_result(BOB, event, EMOJI, None, None, encryption, NOW)
        assert nip90.parse_result(result, ALICE).content == EMOJI


def test_the_result_of_a_plain_job():
    event = nip90.build_request(ALICE, 5002, [("hi", "text", "", "m"), ("yo", "text")], {}, None,
                                [], None, "", None, NOW)
    result = nip90.build_result(BOB, event, "hallo", 3000, "lnbc1x", "", NOW + 5, [["status",
                                                                                    "success"]])
    events.verify(result)
    assert result.kind == 6002 and result.content == "hallo"
    assert json.loads(result.first("request")) == event.to_dict()
    assert result.all("i") == event.all("i") and len(result.all("i")) == 2
    assert (result.first("e"), result.first("p")) == (event.id, ALICE.pubkey)
    assert result.all("amount") == [["amount", "3000", "lnbc1x"]]
    answer = nip90.parse_result(result, ALICE)
    assert (answer.request_id, answer.status, answer.amount_msats, answer.bolt11,
            answer.content) == (event.id, "success", 3000, "lnbc1x", "hallo")


@pytest.mark.parametrize("encryption", ["nip04", "nip44"])
def test_nothing_of_an_encrypted_job_goes_back_in_clear(encryption):
    event = nip90.build_request(ALICE, 5050, [("SECRET-prompt",)], {"model": "SECRET-model"}, None,
                                [], BOB.pubkey, encryption, None, NOW)
    result = nip90.build_result(BOB, event, "SECRET-answer", 5, None, encryption, NOW)
    feedback = [
        nip90.build_feedback(BOB, event, "partial", "", "SECRET-half", None, None, encryption, NOW),
        nip90.build_feedback(BOB, event, "error", "model-unknown: no SECRET-model", "", None, None,
                             encryption, NOW),
        nip90.build_feedback(BOB, event, "processing", "SECRET words", "", None, None, encryption,
                             NOW)]
    for answer in [result, *feedback]:
        events.verify(answer)
        assert "SECRET" not in answer.to_json()
        assert answer.all("encrypted") and not answer.all("i")
    assert json.loads(result.first("request")) == event.to_dict()
    assert nip90.parse_result(result, ALICE).content == "SECRET-answer"
    partial, error, processing = (nip90.parse_feedback(one, ALICE) for one in feedback)
    assert (partial.status, partial.content) == ("partial", "SECRET-half")
    assert (error.status, error.extra, error.content) == (
        "error", "model-unknown: no SECRET-model", "")
    assert feedback[1].all("status") == [["status", "error", "model-unknown"]]
    assert (processing.status, processing.extra) == ("processing", "SECRET words")
    assert feedback[2].all("status") == [["status", "processing"]]
    with pytest.raises(InvalidMessage, match="^cannot decrypt$"):
        nip90.parse_result(result, EVE)


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
def test_a_quote(encryption):
    event = nip90.build_request(ALICE, 5050, [("x",)], {}, None, [], BOB.pubkey, encryption, None,
                                NOW)
    quote = nip90.build_feedback(BOB, event, "payment-required", "", "", 7000, "lnbcrt70n1x",
                                 encryption, NOW, [["expiration", str(NOW + 600)]])
    assert quote.kind == 7000 and quote.expiration() == NOW + 600
    assert quote.all("amount") == [["amount", "7000", "lnbcrt70n1x"]]
    answer = nip90.parse_feedback(quote, ALICE)
    assert (answer.status, answer.amount_msats, answer.bolt11, answer.request_id) == (
        "payment-required", 7000, "lnbcrt70n1x", event.id)


def test_tags_that_a_peer_hid_in_its_feedback_are_found():
    content = BOB.nip44_encrypt(ALICE.pubkey, json.dumps(
        [["status", "payment-required", "pay first"], ["amount", "5000", "lnbc50n1x"]]))
    event = BOB.sign(7000, content, [["encrypted"], ["e", "ab" * 32], ["p", ALICE.pubkey]], NOW)
    answer = nip90.parse_feedback(event, ALICE)
    assert (answer.status, answer.extra, answer.amount_msats, answer.bolt11, answer.content) == (
        "payment-required", "pay first", 5000, "lnbc50n1x", "")


def test_an_invoice_alone_in_the_content_is_found():
    event = BOB.sign(7000, "lnbc50n1abc", [["status", "payment-required"], ["amount", "5000"],
                                           ["e", "ab" * 32]], NOW)
    assert nip90.parse_feedback(event, ALICE).bolt11 == "lnbc50n1abc"
    event = BOB.sign(7000, "lnbc is a prefix", [["status", "x"], ["e", "ab" * 32]], NOW)
    assert nip90.parse_feedback(event, ALICE).bolt11 is None


@pytest.mark.parametrize("kind, tags", [
    (7000, [["e", "ab" * 32]]), (7000, [["status"], ["e", "ab" * 32]]),
    (7000, [["status", "error"]]), (7000, [["status", "error"], ["e", "xyz"]]),
    (7000, [["status", "payment-required"], ["e", "ab" * 32], ["amount", "-5"]]),
    (7000, [["status", "payment-required"], ["e", "ab" * 32], ["amount", "1_000"]]),
    (7000, [["status", "payment-required"], ["e", "ab" * 32], ["amount", "9" * 30]]),
    (6050, [["status", "error"], ["e", "ab" * 32]])])
def test_feedback_that_is_none(kind, tags):
    with pytest.raises(InvalidMessage):
        nip90.parse_feedback(BOB.sign(kind, "", tags, NOW), ALICE)


@pytest.mark.parametrize("kind, tags", [(7000, [["e", "ab" * 32]]), (6050, []), (5050, [])])
def test_results_that_are_none(kind, tags):
    with pytest.raises(InvalidMessage):
        nip90.parse_result(BOB.sign(kind, "", tags, NOW), ALICE)


def test_an_empty_encrypted_feedback_is_read():
    event = BOB.sign(7000, "", [["status", "processing"], ["e", "ab" * 32], ["encrypted"]], NOW)
    assert nip90.parse_feedback(event, ALICE).status == "processing"


def test_a_cancellation_names_its_job():
    event = nip90.build_request(ALICE, 5050, [("x",)], {}, None, [], None, "", None, NOW)
    cancel = nip90.build_cancel(ALICE, event, NOW)
    assert (cancel.kind, cancel.first("e"), cancel.first("k")) == (5, event.id, "5050")


def test_a_job_does_not_print_its_prompt():
    """RUSTSEC-2026-0225 again: what is not shown cannot be logged."""
    for found in (job([["p", BOB.pubkey], ["encrypted"]], encrypted("SECRET", "nip44")),
                  job([["i", "SECRET"], ["param", "x", "SECRET"]], "SECRET")):
        assert "SECRET" not in repr(found) and "SECRET" not in repr(found.event)
