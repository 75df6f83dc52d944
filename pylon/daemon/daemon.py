"""The daemon: built in steps, run by an inbox, stopped in the reverse order of the steps.

Runs in the main thread of the daemon's process. It waits for signals and for what other threads
post; it never works on a job itself. Each step of the start is one method that registers how it
is undone, so a start that fails anywhere leaves nothing behind, and a stop is the same list read
backwards, within one deadline. A second signal brings that deadline forward.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pylon import config as configuration
from pylon import failpoints, log as logs
from pylon.config import Config
from pylon.control import client
from pylon.control.protocol import MAX_STOP_SECS, STOP_SECS
from pylon.control.server import Peer, Server
from pylon.crypto import secp
from pylon.daemon import status
from pylon.daemon.detach import Report
from pylon.daemon.inbox import Deadline, Inbox
from pylon.daemon.lockfile import Lock
from pylon.daemon.systemd import Notifier
from pylon.errors import (AlreadyRunning, ConfigError, EXIT_FAILED, EXIT_OK, PylonError,
                          UsageError)
from pylon.home import Home, write_private
from pylon.identity import Identity
from pylon.role import Role
from pylon.store import meta
from pylon.store.database import Database

log = logging.getLogger(__name__)

FORCED_STOP_SECS = 3.0              # for what is left when the grace is over
SWITCH_INTERVAL_SECS = 0.0005       # a busy thread hands over sooner: the socket answers in time
RELOAD_ANSWER_SECS = 10.0


class StoppedWhileStarting(PylonError):
    """A signal ended the start."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that was started: how it stops within a deadline, and how it is hurried."""

    name: str
    stop: Callable[[Deadline], None]
    hurry: Callable[[], None] | None = None


class Daemon:
    """One node. `serve` runs it from start to stop and gives the exit status."""

    def __init__(self, home: Home, config: Config, identity: Identity, mode: str = "both",
                 config_file: str = "", foreground: bool = False) -> None:
        self.home = home
        self.config = config
        self.identity = identity
        self.keys = identity.keys
        self.mode = mode                        # provider, host or both
        self.config_file = config_file          # of `start -c`; read again by a reload
        self.foreground = foreground
        self.started_at = int(time.time())
        self.started_mono = time.monotonic()
        self.stopping = False
        self.roles: list[Role] = []             # what the watchdog looks at
        self.facts: dict[str, Callable[[], Any]] = {}   # name in `status`: who knows it
        self._parts: list[Part] = []            # in the order of starting
        self._reloads: list[Callable[[Config], None]] = []
        self._deadline = Deadline(0)
        self._stopper: threading.Thread | None = None
        self._exit_status = EXIT_OK

    # -- from start to stop --

    def serve(self, report: Report) -> int:
        """Start, say so down the REPORT, run until stopped. Main thread only."""
        self.inbox = Inbox()
        self.notifier = Notifier()
        try:
            self._start()
        except BaseException as err:
            self._start_failed(err, report)
            return self._exit_status
        self.control.refusal = None
        report.ready()
        self.notifier.ready(f"serving as {self.keys.npub}")
        log.info("pylon is up: %s, mode %s", self.keys.npub, self.mode)
        self._run()
        return self._exit_status

    def _start(self) -> None:
        for step in (self._take_lock, self._open_log, self._settle_in, self._open_store,
                     self._bind_socket, *self.more_steps(), self._write_pid):
            self._refuse_if_signalled()
            name = step.__name__.strip("_")
            failpoints.hit(f"start-{name}")
            step()
            log.debug("started: %s", name)

    def more_steps(self) -> tuple[Callable[[], None], ...]:
        """What the node does, between the socket and the word that it is ready."""
        return ()

    def _start_failed(self, err: BaseException, report: Report) -> None:
        self._exit_status = getattr(err, "exit_status", EXIT_FAILED)
        if self.foreground and isinstance(err, StoppedWhileStarting):
            self._exit_status = EXIT_OK         # as it was told
        reason = str(err)
        if isinstance(err, PylonError):
            log.error("not started: %s", err)
        elif isinstance(err, OSError):
            log.error("not started: %s", err)
            reason = f"{err.strerror}: {err.filename}" if err.filename else str(err)
        else:
            log.error("not started", exc_info=err)
            reason = f"internal error: {type(err).__name__}: {err}; see: pylon logs"
        self._deadline = Deadline(FORCED_STOP_SECS)
        self._stop_parts()
        self.inbox.close()
        report.failed(self._exit_status, reason)

    def _refuse_if_signalled(self) -> None:
        numbers, _ = self.inbox.wait(0)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            raise StoppedWhileStarting("stopped by a signal while starting")

    # -- the steps --

    def add_part(self, name: str, stop: Callable[[Deadline], None],
                 hurry: Callable[[], None] | None = None) -> None:
        """Register how something that a step has just started is stopped."""
        self._parts.append(Part(name, stop, hurry))

    def on_reload(self, apply: Callable[[Config], None]) -> None:
        self._reloads.append(apply)

    def watch(self, *roles: Role) -> None:
        """Let the watchdog look at these roles."""
        self.roles.extend(roles)

    def _take_lock(self) -> None:
        lock = Lock(self.home, "the daemon")
        self.add_part("lock", lambda deadline: lock.release())
        if client.answers(self.home):
            raise AlreadyRunning(f"a daemon answers for {self.home.root} although its lock file "
                                 "was taken away; stop it with: pylon stop")

    def _open_log(self) -> None:
        logs.conceal(self.identity.words or "")
        logs.conceal(self.keys.nsec)
        logs.setup(self.config, self.home, self.foreground)
        faulthandler.enable(2)

    def _settle_in(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_SECS)
        for note in self.config.notes:
            log.warning("%s", note)

    def _open_store(self) -> None:
        self.db = Database(self.home.database, self.home.backups)
        self.add_part("store", lambda deadline: self.db.close())
        self.facts["crypto"] = secp.backend_name
        self.facts["store"] = lambda: {"trouble": self.db.trouble}
        self.facts["stats"] = lambda: {name: meta.total(self.db, name)
                                       for name in ("jobs_completed", "earnings_msats")}

    def _bind_socket(self) -> None:
        self.control = Server(self.home, {})
        self.control.refusal = "the daemon is still starting"
        self.add_part("control socket", lambda deadline: self.control.stop())
        self.control.add("Status", self._answer_status, asking=True, prompt=True)
        self.control.add("StatusText", self._answer_status_text, asking=True, prompt=True)
        self.control.add("StatusJson", lambda args, peer: status.facts(self), asking=True,
                         prompt=True)
        self.control.add("Shutdown", self._answer_shutdown, prompt=True)
        self.control.add("Reload", self._answer_reload)
        self.control.start()

    def _write_pid(self) -> None:
        text = f"{os.getpid()}\n".encode()
        write_private(self.home.pid, text)
        self.add_part("PID file", lambda deadline: self._remove_pid(text))

    def _remove_pid(self, text: bytes) -> None:
        if self.home.pid.exists() and self.home.pid.read_bytes() == text:
            self.home.pid.unlink()

    # -- the inbox --

    def _run(self) -> None:
        while True:
            numbers, works = self.inbox.wait(self._pause_secs())
            for number in numbers:
                self._signalled(number)
            for work in works:
                work()
            if self._stopper is None:
                self._tell_watchdog()
            elif not self._stopper.is_alive():
                break
            elif time.monotonic() > self._deadline.at + FORCED_STOP_SECS:
                self._leave_by_force()
        self.inbox.close()

    def _pause_secs(self) -> float | None:
        if self._stopper is not None:
            return self._deadline.left() + FORCED_STOP_SECS
        return self.notifier.watchdog_secs / 2 or None

    def _signalled(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._stopper is None:
                self._begin_stop(STOP_SECS)
            else:
                self._hurry()
        elif number == signal.SIGUSR1:
            logs.reopen()
            log.info("log opened anew")
        elif number == signal.SIGHUP and self._stopper is None:
            try:
                self._reload()
            except PylonError as err:
                log.error("not reloaded: %s", err)

    def _tell_watchdog(self) -> None:
        if not self.notifier.watchdog_secs:
            return
        stuck = [role.name for role in self.roles if role.stuck_secs() > 0]
        if stuck:
            log.error("stuck: %s; the watchdog is not told that all is well", ", ".join(stuck))
        else:
            self.notifier.alive()

    # -- reload --

    def _reload(self) -> None:
        """Read the configuration again; what is wrong with it changes nothing."""
        self.notifier.reloading()
        try:
            fresh = configuration.load(self.home, self.config_file or None)
            self._refuse_fixed(fresh)
            self.config = fresh
            logs.setup(fresh, self.home, self.foreground)
            for apply in self._reloads:
                apply(fresh)
            log.info("configuration reloaded")
        finally:
            self.notifier.ready(f"serving as {self.keys.npub}")

    def _refuse_fixed(self, fresh: Config) -> None:
        """Some settings hold for the life of the process: money may hang on them."""
        for name in ("network", "wallet", "data_dir", "enable_payments"):
            if getattr(fresh, name) != getattr(self.config, name):
                raise ConfigError(f"{name} cannot change while the daemon runs; nothing was "
                                  "reloaded; use: pylon restart")

    # -- stop --

    def _begin_stop(self, secs: float) -> None:
        self.stopping = True
        log.info("stopping, within %d s", secs)
        self.notifier.stopping("finishing what is under way")
        self._deadline = Deadline(secs)
        self._stopper = threading.Thread(target=self._stop_and_ring, name="stopper", daemon=True)
        self._stopper.start()

    def _stop_and_ring(self) -> None:
        self._stop_parts()
        log.info("pylon is down")
        self.inbox.post(self._join_stopper)

    def _join_stopper(self) -> None:
        if self._stopper is not None:
            self._stopper.join()

    def _stop_parts(self) -> None:
        for part in reversed(self._parts):
            try:
                part.stop(self._deadline)
            except Exception:
                log.exception("%s: could not stop cleanly", part.name)

    def _hurry(self) -> None:
        log.warning("second signal: the grace is over")
        self._deadline.skip()
        for part in reversed(self._parts):
            if part.hurry is not None:
                part.hurry()

    def _leave_by_force(self) -> None:
        """Something does not end. A kill is safe at any point, so this is one."""
        log.error("not everything has stopped in time; leaving now")
        os._exit(EXIT_FAILED)

    # -- what the socket answers --

    def _answer_status(self, args: dict[str, Any], peer: Peer) -> dict[str, Any]:
        return status.first_pylon_form(status.facts(self))

    def _answer_status_text(self, args: dict[str, Any], peer: Peer) -> str:
        return status.plain(status.render(status.facts(self)))

    def _answer_shutdown(self, args: dict[str, Any], peer: Peer) -> None:
        secs = args.get("timeout_secs", STOP_SECS)
        if isinstance(secs, bool) or not isinstance(secs, (int, float)) or \
                not 0 <= secs <= MAX_STOP_SECS:
            raise UsageError(f"timeout_secs must be from 0 to {MAX_STOP_SECS}")
        self.inbox.post(lambda: self._begin_stop(secs) if self._stopper is None else None)

    def _answer_reload(self, args: dict[str, Any], peer: Peer) -> None:
        """Done by the main thread; its outcome is the answer."""
        outcome: queue.SimpleQueue[PylonError | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                if self.stopping:
                    raise UsageError("the daemon is stopping")
                self._reload()
                outcome.put(None)
            except PylonError as err:
                outcome.put(err)
        self.inbox.post(work)
        err = outcome.get(timeout=RELOAD_ANSWER_SECS)
        if err is not None:
            raise err
