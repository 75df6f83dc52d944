"""A real node, a real relay, the ledger, and an agent that thinks, pays and speaks."""

import time

from pylon.nostr import event as events
from pylon.nostr import keys, nip17, nip19, nip59, nip65
from tests.fakes.model import acting
from tests.fakes.stranger import Stranger
from tests.waiting import wait_for

WORDS = "leader monkey parrot ring guide accident before fence cannon height naive bean"


def published(relay, kind):
    return [one["event"] for one in relay.recorded() if one["event"]["kind"] == kind]


def test_an_agent_wakes_thinks_pays_and_posts(world):
    node, relay, model = world
    made = node.json("agent", "spawn", "-n", "scribe", "--heartbeat", "1h")
    assert made["state"] == "spawning" and "words" not in made and "mnemonic" not in str(made)
    node.run("agent", "goal", "scribe", "add", "say hello")
    node.run("agent", "fund", "scribe", "20000")
    wait_for(lambda: node.json("agent", "info", "scribe")["state"] == "active", 10, "revived")
    done = node.run("agent", "tick", "scribe").stdout
    assert "acted" in done and "state=succeeded" in done
    wait_for(lambda: published(relay, 1), 10, "the note at the relay")
    assert published(relay, 1)[0]["content"] == "hello, world"
    assert "say hello" in model.prompts[0]
    info = node.json("agent", "info", "scribe")
    assert info["balance_msats"] == 20_000_000 - 3000      # the node's own price, in the books
    last = node.json("agent", "history", "scribe")["ticks"][0]
    assert (last["state"], last["cost_msats"]) == ("succeeded", 3000)
    for kind in (0, 10002, 10050, 39200, 39201, 39202, 39203, 39210, 39211, 39230, 39231):
        wait_for(lambda: published(relay, kind), 10, f"kind {kind}")
    assert node.json("wallet", "audit")["clean"]
    assert node.json("agent", "withdraw", "scribe", "all")["balance_msats"] == 0


def test_a_mention_and_a_message_wake_it_and_are_answered(world):
    node, relay, model = world
    npub = node.json("agent", "spawn", "-n", "scribe", "--heartbeat", "30d")["npub"]
    node.run("agent", "fund", "scribe", "20000")
    friend = keys.generate()
    model.answer = lambda prompt: acting(type="post", text="I hear you") if "hey you" in prompt \
        else acting(type="direct_message", to=friend.npub, text="hello, friend")
    wait_for(lambda: published(relay, 10050), 10)
    agent, now = nip19.decode_pubkey(npub), int(time.time())
    talker = Stranger(relay.url)
    try:
        talker.publish(nip65.build_dm_relays(friend, [relay.url], now).to_dict())
        mention = friend.sign(1, "hey you", [["p", agent]], now)
        talker.publish(mention.to_dict())
        wait_for(lambda: published(relay, 1)[1:], 20, "an answer")
        answer = published(relay, 1)[-1]
        assert answer["content"] == "I hear you" and ["e", mention.id, "", "root"] in answer["tags"]
        for pubkey, wrap in nip17.build(friend, [agent], "a secret word", now):
            if pubkey == agent:
                talker.publish(wrap.to_dict())
        wait_for(lambda: [one for one in published(relay, 1059) if one["tags"][0][1]
                          == friend.pubkey], 20, "a message back")
    finally:
        talker.close()
    wrap = [one for one in published(relay, 1059) if one["tags"][0][1] == friend.pubkey][0]
    mail = nip17.parse(nip59.unwrap(friend, events.parse(wrap)))
    assert (mail.sender, mail.text) == (agent, "hello, friend")
    assert "<<<a secret word>>>" in model.prompts[-1]
    node.stop()
    node.start()
    wait_for(lambda: node.status()["host"]["agents"] == 1, 10)
    assert node.json("agent", "info", "scribe")["ticks"] == 2       # old words wake nobody
