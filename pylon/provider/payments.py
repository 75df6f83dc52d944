"""Being paid: the till that makes invoices, and the watch that sees their money arrive.

`Till` (thread: till) turns RECEIVED jobs into quotes. `Watch` (thread: watch) asks the wallet
about every hash of ours that may still bring money: at once when the wallet pushes, on a timer
otherwise, long after expiry, because Lightning pays late. It also takes held money once its
result is delivered, and lets it go when the job failed. All of it is resumed from the stored
stages after a restart; memory holds only timers.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from typing import Any, Callable

from pylon.errors import (InvalidMessage, PylonError, WalletDenied, WalletError, WalletMismatch,
                          WalletUnreachable)
from pylon.failpoints import hit
from pylon.log import Repeated, short
from pylon.nostr import event as nostr_event
from pylon.nostr.event import Event
from pylon.nostr.keys import Keys
from pylon.provider import answer
from pylon.role import Role
from pylon.states import JobStage
from pylon.store import invoices, jobs, journal, outbox
from pylon.store.database import Database
from pylon.store.invoices import InvoiceRow
from pylon.store.jobs import JobRow
from pylon.wallets import bolt11
from pylon.wallets.wallet import Invoice, Receipt, Wallet

log = logging.getLogger(__name__)

J = JobStage
RETRY_SECS = 5                      # between tries to get an answer from the wallet
GIVE_UP_SECS = 120                  # after so long without a wallet, an unquoted job is refused
POLL_FIRST_SECS, POLL_MAX_SECS = 2, 30
POLL_PUSHED_SECS = 60               # a wallet that pushes is still asked, in case a push is lost
LATE_POLL_MAX_SECS = 1800           # after expiry
LEAST_QUOTE_SECS = 10               # a job that expires sooner is not quoted any more
LATE_RUN_SECS = 3600                # money later than this is owed, the job is not run any more


def stored_event(job: JobRow) -> Event:
    """The job's own request event, as it was verified on arrival."""
    return nostr_event.parse(nostr_event.load_json(job.event_json or ""))


class Till(Role):
    """Takes jobs in RECEIVED (or INVOICING, after a crash) to QUOTED. Woken by intake."""

    def __init__(self, db: Database, keys: Keys, config: Any, wallet: Callable[[], Wallet | None],
                 on_quoted: Callable[[], None]) -> None:
        super().__init__("till")
        self._db, self._keys, self._config, self._wallet = db, keys, config, wallet
        self._on_quoted = on_quoted             # rings the publisher and the watch
        self._trouble = Repeated(log, logging.WARNING)

    def configure(self, config: Any) -> None:
        """Settings from now on; one assignment, so any thread may call."""
        self._config = config

    def step(self, now: int) -> None:
        waiting = jobs.in_stage(self._db, J.RECEIVED, J.INVOICING)
        retry = False
        for job in waiting:
            if self.stopping:
                return
            retry |= not self._serve(job, int(time.time()))
        self.wait(RETRY_SECS if retry else None)

    def _serve(self, job: JobRow, now: int) -> bool:
        """One job; False where the wallet did not answer and it must be tried again."""
        wallet = self._wallet()
        if job.deadline_at and job.deadline_at - now < LEAST_QUOTE_SECS:
            self._refuse(job, "expired", "the job expires before it could be paid", now)
            return True
        try:
            if wallet is None:
                raise WalletUnreachable("no wallet is open")
            if job.stage == J.RECEIVED:
                job = self._begin(job, wallet, now)
                found = None
            else:
                found = wallet.find_invoice(job.id) if wallet.names_invoices else None
            invoice = found or self._ask(job, wallet, now)
            hit("K5")
            self._publish(job, wallet, self._checked(job, invoice, wallet), now)
            self._trouble.over("wallet answers again")
            return True
        except WalletUnreachable as err:
            self._trouble.failed("wallet: no invoice for job %s: %s", short(job.id), err)
            if now - job.created_at < GIVE_UP_SECS:
                return False
            self._refuse(job, "no-wallet", "the wallet does not answer", now)
        except WalletMismatch as err:
            log.error("job %s: wallet's invoice refused: %s", short(job.id), err)
            self._refuse(job, "wallet-mismatch", "the wallet's invoice was wrong", now)
        except WalletError as err:
            self._trouble.failed("wallet: refuses an invoice: %s", err)
            self._refuse(job, "no-wallet", "the wallet refuses to make an invoice", now)
        return True

    def _begin(self, job: JobRow, wallet: Wallet, now: int) -> JobRow:
        preimage = os.urandom(32).hex() if self._escrow(wallet) else None
        invoices.begin(self._db, job.id, job.price_msats, preimage, now)
        return jobs.get(self._db, job.id) or job

    def _escrow(self, wallet: Wallet) -> bool:
        choice = self._config.pricing.escrow
        return wallet.can_hold and (choice == "on" or (choice == "auto"
                                                       and wallet.name == "ledger"))

    def _ask(self, job: JobRow, wallet: Wallet, now: int) -> Invoice:
        expiry = self._config.pricing.invoice_expiry_secs
        if job.deadline_at:                 # nobody should pay for a job that has expired
            expiry = min(expiry, job.deadline_at - now)
        hold_hash = (hashlib.sha256(bytes.fromhex(job.hold_preimage)).hexdigest()
                     if job.hold_preimage else None)
        invoice = wallet.make_invoice(job.price_msats, f"NIP-90 job {job.id}",
                                      expiry, job.id, hold_hash)
        hit("K4")
        return invoice

    def _checked(self, job: JobRow, invoice: Invoice, wallet: Wallet) -> InvoiceRow:
        """Our own decoder must read in the invoice what was asked for. Raises WalletMismatch."""
        try:
            read = bolt11.decode(invoice.bolt11)
        except InvalidMessage as err:
            raise WalletMismatch(f"it is not a BOLT11 invoice: {err}") from err
        wrong = [name for name, is_so in (
            ("network", read.network != wallet.network),
            ("amount", read.amount_msats != job.price_msats),
            ("payment hash", read.payment_hash != invoice.payment_hash),
        ) if is_so]
        if wrong:
            raise WalletMismatch(f"its {' and '.join(wrong)} differ from what was asked")
        return InvoiceRow("inv_job_" + job.id[:12] + invoice.payment_hash[:12], job.id,
                          invoice.bolt11, invoice.payment_hash, job.price_msats, "pending",
                          job.payment == "hold", "provider", read.created_at, read.expires_at,
                          None)

    def _publish(self, job: JobRow, wallet: Wallet, invoice: InvoiceRow, now: int) -> None:
        feedback = answer.quote(self._keys, stored_event(job), job.encryption, invoice, now)
        watch_until = invoice.expires_at + self._config.pricing.watch_secs
        invoices.quote(self._db, job, invoice, wallet.name, feedback, watch_until, now)
        log.info("job %s: quoted %d msats", short(job.id), invoice.amount_msats)
        self._on_quoted()

    def _refuse(self, job: JobRow, code: str, reason: str, now: int) -> None:
        request = stored_event(job)
        with self._db.transaction(durable=False) as tx:
            jobs.refuse(tx, job.id, code, reason, now)
            outbox.add(tx, answer.error(self._keys, request, job.encryption, code, reason, now),
                       "error", job.id, job.answer_relays, now, now + answer.ERROR_KEEP_SECS)
        self._on_quoted()


class Watch(Role):
    """Sees money arrive, be held, be late, or not come at all. Woken by wallet pushes."""

    def __init__(self, db: Database, keys: Keys, config: Any, wallet: Callable[[], Wallet | None],
                 on_feedback: Callable[[], None]) -> None:
        super().__init__("watch")
        self._db, self._keys, self._config, self._wallet = db, keys, config, wallet
        self.on_paid: Callable[[], None] = _nobody      # a job may run; set by Provider
        self._on_feedback = on_feedback
        self._timers: dict[str, tuple[float, float]] = {}   # hash -> (due at, interval), monotonic
        self._hints: set[str | None] = set()                # hashes that the wallet pushed
        self._trouble = Repeated(log, logging.WARNING)

    def configure(self, config: Any) -> None:
        """Settings from now on; one assignment, so any thread may call."""
        self._config = config

    def pushed(self, payment_hash: str | None) -> None:
        """The wallet says that something changed (None: it doesn't say what). Any thread."""
        self._hints.add(payment_hash)
        self.wake()

    def step(self, now: int) -> None:
        wallet = self._wallet()
        if wallet is None:
            self.wait(RETRY_SECS)
            return
        hints, self._hints = self._hints, set()
        watched = invoices.watched(self._db)
        self._finish_held(wallet, now)
        clock = time.monotonic()
        for invoice in watched:
            due = self._timers.get(invoice.payment_hash, (0.0, 0.0))[0]
            if due <= clock or None in hints or invoice.payment_hash in hints:
                if not self._look(wallet, invoice, int(time.time()), clock):
                    break
        known = {invoice.payment_hash for invoice in watched}
        self._timers = {h: t for h, t in self._timers.items() if h in known}
        self.wait(self._next_due(watched))

    def _next_due(self, watched: list[InvoiceRow]) -> float | None:
        if not watched:
            return None
        clock = time.monotonic()
        due = min(self._timers.get(i.payment_hash, (clock, 0))[0] for i in watched)
        return max(0.05, due - clock)

    def _look(self, wallet: Wallet, invoice: InvoiceRow, now: int, clock: float) -> bool:
        """Ask about one hash and act on the answer; False where the wallet does not answer."""
        hit("K8")
        try:
            receipt = wallet.lookup(invoice.payment_hash)
            self._trouble.over("wallet answers again")
            hit("K9")
            self._act(wallet, invoice, receipt, now)
        except (WalletUnreachable, WalletDenied) as err:
            self._trouble.failed("wallet: cannot be asked about payments: %s", err)
            self._timers[invoice.payment_hash] = (clock + RETRY_SECS, RETRY_SECS)
            return False
        except WalletError as err:
            log.warning("wallet: about %s: %s", short(invoice.payment_hash), err)
        self._schedule(wallet, invoice, now, clock)
        return True

    def _schedule(self, wallet: Wallet, invoice: InvoiceRow, now: int, clock: float) -> None:
        before = self._timers.get(invoice.payment_hash, (0.0, 0.0))[1]
        first = POLL_PUSHED_SECS if wallet.pushes else POLL_FIRST_SECS
        longest = POLL_PUSHED_SECS if wallet.pushes else POLL_MAX_SECS
        if now > invoice.expires_at:
            longest = LATE_POLL_MAX_SECS
        interval = min(longest, max(first, before * 1.5))
        until_expiry = invoice.expires_at - now
        if 0 <= until_expiry < interval:
            interval = until_expiry + 1         # notice the expiry when it comes
        self._timers[invoice.payment_hash] = (clock + interval, interval)

    def _act(self, wallet: Wallet, invoice: InvoiceRow, receipt: Receipt, now: int) -> None:
        if receipt.state == "paid":
            self._paid(wallet, invoice, receipt, now)
        elif receipt.state == "held":
            self._held(wallet, invoice, receipt, now)
        elif invoice.hold and receipt.state in ("cancelled", "expired"):
            self._hold_gone(invoice, receipt.state, now)
        if receipt.state in ("open", "expired", "missing", "cancelled"):
            if now > invoice.expires_at and invoice.status == "pending":
                invoices.expire(self._db, invoice, now)
            if invoice.watch_until is not None and now > invoice.watch_until:
                invoices.unwatch(self._db, invoice, "expired", now)

    def _paid(self, wallet: Wallet, invoice: InvoiceRow, receipt: Receipt, now: int) -> None:
        received = receipt.received_msats
        stage = invoices.settle(self._db, invoice, received, self._can_run(invoice, now), now)
        log.info("invoice %s: %d msats arrived", short(invoice.payment_hash), received)
        if stage == J.PAID:
            self.on_paid()
        elif stage == J.OWED:
            self._tell_owed(invoice, now)

    def _can_run(self, invoice: InvoiceRow, now: int) -> bool:
        job = jobs.get(self._db, invoice.job_id) if invoice.job_id else None
        if job is None or (job.deadline_at and now > job.deadline_at):
            return False
        return now - invoice.expires_at <= LATE_RUN_SECS

    def _tell_owed(self, invoice: InvoiceRow, now: int) -> None:
        job = jobs.get(self._db, str(invoice.job_id))
        if job is None:
            return
        log.warning("job %s: money came that the job cannot use: it is owed", short(job.id))
        code = job.code or "paid-late"
        event = answer.error(self._keys, stored_event(job), job.encryption, code,
                             "your payment arrived; it is recorded as owed to you", now)
        with self._db.transaction(durable=False) as tx:
            outbox.withdraw(tx, "error", job.id)
            outbox.add(tx, event, "error", job.id, job.answer_relays, now,
                       now + answer.RESULT_KEEP_SECS)
        self._on_feedback()

    def _held(self, wallet: Wallet, invoice: InvoiceRow, receipt: Receipt, now: int) -> None:
        job = jobs.get(self._db, str(invoice.job_id))
        if job is None or job.stage not in (J.QUOTED, J.EXPIRED, J.CANCELLED):
            return
        deadline = now + self._config.pricing.max_hold_secs
        if receipt.hold_expires_at is not None:
            deadline = min(deadline, receipt.hold_expires_at)
        enough = receipt.received_msats >= invoice.amount_msats
        can_run = enough and self._can_run(invoice, now)
        if invoices.hold(self._db, invoice, can_run, deadline, now) == J.HELD:
            log.info("job %s: payment held", short(job.id))
            self.on_paid()
        else:
            wallet.cancel(invoice.payment_hash)     # money goes back: nobody lost anything

    def _hold_gone(self, invoice: InvoiceRow, state: str, now: int) -> None:
        """The held money went back to the customer: the job ends CANCELLED."""
        job = jobs.get(self._db, str(invoice.job_id))
        if job is None:
            return
        with self._db.transaction(durable=True) as tx:
            if job.stage == J.HELD:
                jobs.fail(tx, job, J.CANCELLING, "deadline", "the held payment was let go", now)
            if job.stage in (J.HELD, J.CANCELLING, J.SETTLING):
                jobs.advance(tx, job.id, J.CANCELLED, now)
                journal.add(tx, "HoldReleased", job.id, {"state": state}, now)
        if job.stage in (J.HELD, J.CANCELLING, J.SETTLING):
            invoices.unwatch(self._db, invoice, "cancelled", now)

    def _finish_held(self, wallet: Wallet, now: int) -> None:
        """Take the money of delivered jobs, let go the money of failed ones."""
        for job in jobs.begin_settling(self._db, now):
            invoice = invoices.of_job(self._db, job.id)
            if invoice is None:
                continue
            try:
                if job.stage == J.CANCELLING:
                    wallet.cancel(invoice.payment_hash)
                else:
                    wallet.settle(str(job.hold_preimage))
                self._timers.pop(invoice.payment_hash, None)     # look at it in this very step
            except PylonError as err:
                self._trouble.failed("wallet: held payment of job %s: %s", short(job.id), err)


def _nobody() -> None:
    """Who is rung while nobody serves."""
