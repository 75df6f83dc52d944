"""G1 to G3: what it costs to know that a frame from a relay is true."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import ecdsa
import nostr_sdk

from pylon.crypto.pure import N, Pure, _tagged
from pylon.nostr import event as events
from pylon.nostr import messages
from tests.bench import frames
from tests.bench.compiled import VerifyLoop
from tests.bench.goal import Result, interleave, ratio, seconds

EVENTS = 2000
ROUNDS = 7
PURE_EVENTS = 60


def run() -> list[Result]:
    made = frames.make_events(EVENTS)
    texts = [frames.frame(event) for event in made]
    return [*frame_path(made, texts), two_threads(texts), plain_ecdsa(made[:PURE_EVENTS])]


def frame_path(made: list[events.Event], texts: list[str]) -> list[Result]:
    records = frames.records(made)
    with tempfile.TemporaryDirectory() as directory:
        loop = VerifyLoop(Path(directory))
        times = interleave(ROUNDS, ours=lambda: seconds(lambda: verify_all(texts)),
                           c=lambda: seconds(lambda: loop.run(records)),
                           sdk=lambda: seconds(lambda: verify_with_sdk(texts)))
    note = f"{len(texts) / min(times['ours']):,.0f} frames/s, {len(texts[0])} characters each"
    return [Result("G1", "frame to verified event, of the C verify loop's speed",
                   ratio(times["c"], times["ours"]), 0.80, at_least=True, note=note),
            Result("G1", "the same, of nostr-sdk's speed", ratio(times["sdk"], times["ours"]), 3.0,
                   at_least=True)]


def verify_all(texts: list[str]) -> None:
    for text in texts:
        message = messages.parse(text)
        assert isinstance(message, messages.RelayEvent)
        events.verify(message.event)


def verify_with_sdk(texts: list[str]) -> None:
    for text in texts:
        event = nostr_sdk.RelayMessage.from_json(text).as_enum().event
        assert event.verify()


def two_threads(texts: list[str]) -> Result:
    if (os.cpu_count() or 1) < 2:
        return Result("G2", "two threads verify (this machine has one core)", 0, 1.5, True)
    half = len(texts) // 2
    # A thread verifies as much alone as beside another: twice the work in less than twice the time.
    times = interleave(ROUNDS, one=lambda: seconds(lambda: in_threads([texts[:half]])),
                       two=lambda: seconds(lambda: in_threads([texts[:half], texts[half:]])))
    return Result("G2", "two relay threads verify, of one's speed",
                  2 * ratio(times["one"], times["two"]), 1.5, at_least=True)


def in_threads(parts: list[list[str]]) -> None:
    threads = [threading.Thread(target=verify_all, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def plain_ecdsa(made: list[events.Event]) -> Result:
    pure = Pure()
    triples = [(bytes.fromhex(e.pubkey), bytes.fromhex(e.id), bytes.fromhex(e.sig)) for e in made]
    points = {pub: pure._xonly(pub) for pub, _, _ in triples}
    generator = ecdsa.SECP256k1.generator

    def ours() -> None:
        for pub, msg, sig in triples:
            assert pure.verify_schnorr(pub, msg, sig)

    def bare() -> None:
        for pub, msg, sig in triples:
            e = int.from_bytes(_tagged("challenge", sig[:32] + pub + msg), "big") % N
            generator.mul_add(int.from_bytes(sig[32:], "big"), points[pub], N - e).to_affine()

    times = interleave(ROUNDS, bare=lambda: seconds(bare), ours=lambda: seconds(ours))
    return Result("G3", "verify without libsecp256k1, of ecdsa's own mul_add's speed",
                  ratio(times["bare"], times["ours"]), 0.95, at_least=True,
                  note=f"{len(made) / min(times['ours']):,.0f} a second")
