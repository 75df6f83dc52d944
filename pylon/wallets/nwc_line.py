"""The line to a wallet over Nostr Wallet Connect: calls out, answers and notifications in.

A pool of its own holds the relays of the connection string; what arrives comes on their threads.
A call goes to every relay that is connected, or becomes so while it is waited for; the first good
answer counts. Whoever calls, waits; any thread may.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pylon.errors import (InvalidMessage, WalletDenied, WalletError, WalletMismatch,
                          WalletUnreachable)
from pylon.log import peer_text, short
from pylon.nostr import nip47
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.relays.pool import Pool
from pylon.relays.subscription import Subscription

log = logging.getLogger(__name__)

PoolFactory = Callable[[Callable[[], Sequence[Keys]]], Pool]

CALL_SECS = 20.0
RESEND_SECS = 5.0                   # relays do not keep calls, and the wallet's link may be down
KINDS = frozenset((nip47.INFO, nip47.RESPONSE, nip47.NOTIFICATION_NIP04,
                   nip47.NOTIFICATION_NIP44))
_DENIED = (nip47.RESTRICTED, nip47.UNAUTHORIZED)
_LATER = (nip47.RATE_LIMITED, nip47.INTERNAL)


class Answered(WalletError):
    """The wallet answered with an error; `reason` is its NIP-47 code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"the wallet says {reason}: {peer_text(message)}")
        self.reason = reason


class _Waiting:
    """One call on its way. All but `event` is guarded by the line's condition."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.offered: set[str] = set()          # relays that took it
        self.refused: dict[str, str] = {}       # of these, who will not pass it on, and why
        self.response: nip47.Response | None = None


class Line:
    """`on_info` runs when the wallet says what it can; `on_notice(hash)` when it says that
    something changed (None: it may have). Both on a relay's thread."""

    def __init__(self, connection: nip47.Connection, pool_factory: PoolFactory,
                 on_info: Callable[[nip47.Info], None],
                 on_notice: Callable[[str | None], None]) -> None:
        self.wallet_pubkey = connection.wallet_pubkey
        self.keys = Keys(connection.secret)
        self._on_info, self._on_notice = on_info, on_notice
        self._changed = threading.Condition()
        self._waiting: dict[str, _Waiting] = {}     # by the id of the call; guarded by _changed
        self._info: nip47.Info | None = None        # guarded by _changed
        self._info_at = 0
        self._is_open = True
        since = int(time.time()) - 60
        self._pool = pool_factory(lambda: [self.keys])
        self._pool.listen(self._relay_changed)
        self._pool.subscribe(Subscription("nwc", [
            {"kinds": [nip47.INFO], "authors": [self.wallet_pubkey], "limit": 1},
            # Not narrowed by `p`: Alby's SDK leaves it out of its answers.
            {"kinds": [nip47.RESPONSE], "authors": [self.wallet_pubkey], "since": since},
            {"kinds": [nip47.NOTIFICATION_NIP04, nip47.NOTIFICATION_NIP44], "since": since,
             "authors": [self.wallet_pubkey], "#p": [self.keys.pubkey]}],
            self._arrived, self._is_wanted, resume_overlap_secs=60))
        self._pool.start(connection.relays)

    # ---- out ------------------------------------------------------------------------------------

    def info(self) -> nip47.Info:
        """What the wallet can; waits for it. Raises WalletUnreachable."""
        with self._changed:
            self._changed.wait_for(lambda: self._info is not None or not self._is_open, CALL_SECS)
            if self._info is None:
                raise WalletUnreachable("the wallet has not said what it can: "
                                        + ("its relays have no info event of it"
                                           if self._pool.connected() else "no relay answers"))
            return self._info

    def build(self, method: str, params: dict[str, Any], expires_at: int) -> Event:
        """A signed call, to be sent by `send`. Raises WalletUnreachable."""
        encryption = self.info().encryption
        return nip47.build_call(self.keys, self.wallet_pubkey, method, params, encryption,
                                int(time.time()), expires_at)

    def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a call. Raises Answered, WalletDenied, WalletUnreachable."""
        expires_at = int(time.time() + CALL_SECS) + 5
        return self.send(self.build(method, params, expires_at), method, CALL_SECS, again=True)

    def send(self, event: Event, method: str, secs: float, again: bool) -> dict[str, Any]:
        """Send a call as it is, and wait. WalletUnreachable: what the wallet did is not known.

        `again` offers the same event every few seconds. A wallet should act on it once, but not
        all do: a call to pay goes out once over each connection.
        """
        waiting = _Waiting(event)
        with self._changed:
            self._waiting[event.id] = waiting
        try:
            response = self._wait(waiting, time.monotonic() + secs, again)
        finally:
            with self._changed:
                del self._waiting[event.id]
        return _result(response, method)

    def _wait(self, waiting: _Waiting, until: float, again: bool) -> nip47.Response:
        event_json, sent_to = waiting.event.to_json(), set[str]()
        resend_at = time.monotonic() + RESEND_SECS if again else until
        while True:
            if again and time.monotonic() >= resend_at:
                sent_to, resend_at = set(), time.monotonic() + RESEND_SECS
            fresh = [url for url in self._pool.connected() if url not in sent_to]
            sent_to.update(self._pool.publish(waiting.event.id, event_json, fresh,
                                              self._relay_said))
            with self._changed:
                waiting.offered |= sent_to
                if waiting.response is None:
                    self._changed.wait(max(0.0, min(until, resend_at) - time.monotonic()))
                if waiting.response is not None:
                    return waiting.response
                self._check(waiting, until)

    def _check(self, waiting: _Waiting, until: float) -> None:
        if not self._is_open:
            raise WalletUnreachable("the wallet is closed")
        if waiting.offered and waiting.offered <= waiting.refused.keys():
            reason = next(iter(waiting.refused.values()))
            raise WalletUnreachable(f"no relay passes the call on: {peer_text(reason)}")
        if time.monotonic() >= until:
            raise WalletUnreachable("the wallet did not answer in time" if waiting.offered
                                    else "no relay of the wallet is connected")

    # ---- in (on the relays' threads) ------------------------------------------------------------

    def _is_wanted(self, event: Event) -> bool:
        if event.kind == nip47.RESPONSE and event.first("e") not in self._waiting:
            return False
        return event.kind in KINDS and event.pubkey == self.wallet_pubkey

    def _relay_changed(self, url: str, connected: bool) -> None:
        with self._changed:
            self._changed.notify_all()
        if connected:
            self._on_notice(None)

    def _relay_said(self, relay: str, event_id: str, accepted: bool, message: str) -> None:
        with self._changed:
            waiting = self._waiting.get(event_id)
            if waiting is not None and not accepted:
                waiting.refused[relay] = message
                self._changed.notify_all()

    def _arrived(self, relay: str, events: list[Event]) -> None:
        for event in events:
            try:
                self._take(event)
            except InvalidMessage as err:
                log.info("nwc: an event of kind %d dropped: %s", event.kind, err)

    def _take(self, event: Event) -> None:
        if event.kind == nip47.INFO:
            self._take_info(event)
        elif event.kind == nip47.RESPONSE:
            self._take_response(nip47.parse_response(event, self.keys, self.wallet_pubkey))
        else:
            notice = nip47.parse_notification(event, self.keys, self.wallet_pubkey)
            payment_hash = notice.data.get("payment_hash")
            self._on_notice(payment_hash if isinstance(payment_hash, str) else None)

    def _take_info(self, event: Event) -> None:
        info = nip47.parse_info(event, self.wallet_pubkey)
        with self._changed:
            if event.created_at < self._info_at:
                return
            self._info, self._info_at = info, event.created_at
        self._on_info(info)
        with self._changed:
            self._changed.notify_all()

    def _take_response(self, response: nip47.Response) -> None:
        with self._changed:
            waiting = self._waiting.get(response.call_id)
            if waiting is None:
                log.debug("nwc: an answer to %s, which nobody waits for", short(response.call_id))
            elif waiting.response is None:
                waiting.response = response
                self._changed.notify_all()

    def relays(self) -> dict[str, bool]:
        """Which relays there are, and whether they are connected."""
        connected = self._pool.connected()
        return {url: url in connected for url in self._pool.own_urls()}

    def close(self) -> None:
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        self._pool.stop()


def _result(response: nip47.Response, method: str) -> dict[str, Any]:
    if response.result is None:
        if response.error_code in _DENIED:
            raise WalletDenied(f"the wallet refuses us ({response.error_code}): "
                               f"{peer_text(response.error_message)}")
        if response.error_code in _LATER:
            raise WalletUnreachable(f"the wallet says {response.error_code}: "
                                    f"{peer_text(response.error_message)}")
        raise Answered(response.error_code, response.error_message)
    if response.result_type != method:
        raise WalletMismatch(f"the wallet answered {peer_text(response.result_type)} to {method}")
    return response.result
