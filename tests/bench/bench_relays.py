"""G7, G8 and G11: what relays cost while nothing happens, and what a backlog costs."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pylon import config
from pylon.nostr.event import Event
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription
from pylon.store import seen
from pylon.store.database import Database
from tests.bench import blaster, frames
from tests.bench.compiled import VerifyLoop
from tests.bench.goal import Result, interleave, ratio, seconds
from tests.parts import certificates, venvs
from tests.parts.program import Program, free_port
from tests.parts.relays import LocalRelay
from tests.waiting import wait_for

BACKLOG = 20_000
KNOWN = 8_000               # as many as a subscription surely remembers
ROUNDS = 3
RELAYS = 20
IDLE_RELAYS = 10
IDLE_SECS = 60


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        return [*backlog(directory), duplicates(directory), *per_relay(directory), *idle()]


# ---- a backlog -----------------------------------------------------------------------------------

@contextmanager
def blasting(made: list[Event], directory: Path) -> Iterator[str]:
    """A relay that has these events stored."""
    data = b"".join(blaster.frame(frames.frame(event)) for event in made)
    (directory / "frames").write_bytes(data + blaster.frame('["EOSE","jobs"]'))
    port = free_port()
    program = Program([sys.executable, "-m", "tests.bench.blaster", str(port),
                       directory / "frames"], cwd=venvs.ROOT)
    program.start(lambda: "ready" in program.output())
    try:
        yield f"ws://127.0.0.1:{port}"
    finally:
        program.close()


class Listener:
    """A pool with one relay, and a store that takes what comes."""

    def __init__(self, url: str, directory: Path) -> None:
        self.db = Database(directory / f"seen-{time.monotonic_ns()}.db")
        self.pool = Pool(config.from_values({}), lambda: [])
        self.count, self.done = 0, 0
        self.sub = Subscription("jobs", [{"kinds": [5050]}], self.take, on_eose=self.end)
        self.pool.start([url])
        wait_for(self.pool.connected)

    def take(self, relay: str, events: list[Event]) -> None:
        now = int(time.time())
        with self.db.transaction(durable=False) as tx:
            for event in events:
                seen.add(tx, event.id, now)
        self.count += len(events)

    def end(self, relay: str) -> None:
        self.done += 1

    def listen(self) -> None:
        """Ask, and wait for the end of what is stored."""
        before = self.done
        self.pool.subscribe(self.sub)
        wait_for(lambda: self.done > before, 120)
        self.pool.unsubscribe("jobs")

    def close(self) -> None:
        self.pool.stop()
        self.db.close()


def backlog(directory: Path) -> list[Result]:
    made = frames.make_events(BACKLOG)
    records, loop = frames.records(made), VerifyLoop(directory)
    growth: list[float] = []

    with blasting(made, directory) as url:
        def ours() -> float:
            listener = Listener(url, directory)
            before = reset_peak_kib()
            took = seconds(listener.listen)
            growth.append((peak_kib() - before) / 1024)
            assert listener.count == BACKLOG
            listener.close()
            return took

        times = interleave(ROUNDS, ours=ours, c=lambda: seconds(lambda: loop.run(records)))
    speed = BACKLOG / min(times["ours"])
    return [Result("G11", f"{BACKLOG:,} stored events, of the C verify loop's time",
                   ratio(times["ours"], times["c"]), 1.6, note=f"{speed:,.0f} events/s"),
            Result("G11", "memory that this takes for a while", statistics.median(growth), 20,
                   unit="MB")]


def duplicates(directory: Path) -> Result:
    made = frames.make_events(KNOWN)
    with blasting(made, directory) as url:
        def fresh_then_known() -> tuple[float, float]:
            listener = Listener(url, directory)
            found = seconds(listener.listen), seconds(listener.listen)
            assert listener.count == KNOWN
            listener.close()
            return found

        pairs = [fresh_then_known() for _ in range(ROUNDS)]
    return Result("G11", "a frame that is known, of a fresh one",
                  statistics.median(known / fresh for fresh, known in pairs), 0.25)


def reset_peak_kib() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak_kib()


def peak_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("no VmHWM in /proc/self/status")


# ---- nothing to do -------------------------------------------------------------------------------

@contextmanager
def idle_pool(urls: list[str], ca_file: str = "") -> Iterator[int]:
    """The process id of a pool that is connected to all of them."""
    program = Program([sys.executable, "-m", "tests.bench.idle_pool", ca_file, *urls],
                      cwd=venvs.ROOT)
    program.start(lambda: f"ready {len(urls)}" in program.output(), 60)
    try:
        yield program.pid
    finally:
        program.close()


def urls_of(relay: LocalRelay, count: int) -> list[str]:
    """The same relay under many names."""
    return [f"{relay.url}/{number}" for number in range(count)]


def per_relay(directory: Path) -> list[Result]:
    made = certificates.make(directory)
    results = []
    for what, tls, limit in (("plain", None, 60), ("TLS", made, 200)):
        ca_file = str(made.authority) if tls else ""
        with LocalRelay(tls=tls) as relay:
            found = []
            for _ in range(ROUNDS):
                with idle_pool(urls_of(relay, 1), ca_file) as few, \
                        idle_pool(urls_of(relay, 1 + RELAYS), ca_file) as many:
                    found.append((rss_kib(many) - rss_kib(few)) / RELAYS)
        results.append(Result("G7", f"one more relay, {what}", statistics.median(found), limit,
                              unit="kB"))
    return results


def idle() -> list[Result]:
    with LocalRelay() as relay, idle_pool(urls_of(relay, IDLE_RELAYS)) as pid:
        before, cpu_before = switches(pid), cpu_ms(pid)
        started = time.monotonic()
        wait_for(lambda: time.monotonic() - started >= IDLE_SECS, IDLE_SECS + 5)
        per_sec = (switches(pid) - before) / IDLE_SECS
        cpu = (cpu_ms(pid) - cpu_before) * 20 / IDLE_SECS
    return [Result("G8", f"context switches a second, {IDLE_RELAYS} relays", per_sec, 1.0,
                   unit="/s"),
            Result("G8", "CPU in 20 s of that", cpu, 2.0, unit="ms")]


def rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise RuntimeError("no Rss")


def switches(pid: int) -> int:
    """Of all threads, of both kinds."""
    return sum(int(line.split()[1])
               for task in Path(f"/proc/{pid}/task").iterdir()
               for line in (task / "status").read_text().splitlines() if "ctxt_switches" in line)


def cpu_ms(pid: int) -> float:
    """To the microsecond, unlike the ticks of /proc/PID/stat."""
    return sum(int((task / "schedstat").read_text().split()[0])
               for task in Path(f"/proc/{pid}/task").iterdir()) / 1e6
