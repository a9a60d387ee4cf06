"""The audit log as the server uses it: `record` costs microseconds, a thread writes.

The thread takes what has come while it wrote the group before: the busier, the larger the groups, and the disk is
flushed once a group.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from penstock.audit.chain import Chain, Entry
from penstock.audit.counts import AuditCounts
from penstock.audit.event import AuditEvent, bounded, cleaned
from penstock.audit.recovery import Damaged
from penstock.audit.signing import Signer
from penstock.audit_config import AuditSettings
from penstock.errors import ConfigError, Unavailable
from penstock.wording import counted

log = logging.getLogger(__name__)

MAX_WAITING: Final = 50_000
"""Events that wait to be written."""
MAX_GROUP: Final = 2_000
GATHER_S: Final = 0.005
"""How long a group waits for more where nobody waits for it."""
RETRY_S: Final = 0.5
LOUD_S: Final = 10.0
"""From one line in the server's log about records that can't be written to the next."""
CLOSE_S: Final = 5.0
CANT: Final = "the audit log can't be written"


class Ticket:
    """One event's way into the log."""

    __slots__ = ("event", "problem", "settled", "time_ns")

    def __init__(self, event: AuditEvent, time_ns: int) -> None:
        self.event: Final = event
        self.time_ns: Final = time_ns
        self.settled = False
        """It is durable, or `problem` says why it isn't."""
        self.problem = ""


class AuditLog:
    """One a process. The thread starts with the first event."""

    def __init__(
        self,
        settings: AuditSettings,
        signer: Signer | None = None,
        key: Callable[[], Signer] | None = None,
    ) -> None:
        """`key`: reads the key that signs, when there is something to sign; it may block, and raise ConfigError."""
        self._key = key
        self.settings: Final = settings
        self.counts: Final = AuditCounts()
        self._refuses: Final = settings.when_it_cant_be_written == "refuse"
        self._chain: Final = Chain(settings, signer)
        self._queue: Final[deque[Ticket]] = deque()
        self._awake: Final = threading.Event()
        self._hurry: Final = threading.Event()
        self._lock: Final = threading.Lock()
        self._chain_lock: Final = threading.Lock()
        self._waiters: Final[dict[Ticket, list[Callable[[], None]]]] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        self._next_signer: Signer | None = None
        self._problem = ""
        self._lost = 0
        self._loud_at = float("-inf")

    # ── the event loop's side ───────────────────────────────────────────────────────────────────────────────────────

    def record(self, event: AuditEvent) -> Ticket:
        """Have an event written. Raises Unavailable where the policy is `refuse` and it can't be."""
        ticket = Ticket(bounded(event), time.time_ns())
        if self._refuses:
            self.check()
        if len(self._queue) >= MAX_WAITING or self._closing:
            return self._overflow(ticket)
        self._queue.append(ticket)
        if not self._awake.is_set():
            self._awake.set()
        if self._thread is None:
            self._start()
        return ticket

    def check(self) -> None:
        """Raises Unavailable where the policy is `refuse` and nothing can be written."""
        if self._refuses and self.counts.failing:
            self._say()
            raise Unavailable(CANT, RETRY_S)

    async def durable(self, ticket: Ticket) -> None:
        """Until the event is on the disk. Raises Unavailable where the policy is `refuse` and it can't be; where it is
        `go_on` this returns all the same.
        """
        if not ticket.settled:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def wake() -> None:
                loop.call_soon_threadsafe(_settle, future)

            if self._wait(ticket, wake):
                await future
        self._check(ticket)

    def wait(self, ticket: Ticket, timeout_s: float = 10.0) -> None:
        """As `durable`, for programs without an event loop."""
        done = threading.Event()
        if self._wait(ticket, done.set) and not done.wait(timeout_s):
            raise Unavailable(f"{CANT}: it takes longer than {timeout_s:g} s")
        self._check(ticket)

    def rekey(self, signer: Signer) -> None:
        """Sign by another key from now on."""
        self._next_signer = signer
        self._awake.set()

    def probe(self) -> None:
        """Begin the log, or look whether it can be gone on with, before anything happens. Raises Unavailable."""
        try:
            with self._chain_lock:
                self._take_key()
                self._chain.append([])
        except (OSError, Damaged, ConfigError) as error:
            raise Unavailable(f"{CANT}: {self._text(error)}") from error

    def close(self) -> None:
        """Write what is left, with a last checkpoint."""
        self._closing = True
        if self._thread is None and not self._queue:
            return
        self._awake.set()
        self._hurry.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        if left := len(self._queue):
            log.error(
                "%s lost: %s", counted(left, "audit record"), self._problem or "it took too long"
            )

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()

    def _overflow(self, ticket: Ticket) -> Ticket:
        if self._refuses:
            raise Unavailable(CANT if self._closing else f"{CANT} fast enough", RETRY_S)
        with self._lock:
            self._lost += 1
            self.counts.lost += 1
        self._say()
        ticket.settled = True
        return ticket

    def _wait(self, ticket: Ticket, wake: Callable[[], None]) -> bool:
        """Whether `wake` will be called."""
        with self._lock:
            if ticket.settled:
                return False
            if self.counts.failing:
                ticket.problem = self._problem
                return False
            self._waiters.setdefault(ticket, []).append(wake)
        self._hurry.set()
        return True

    def _check(self, ticket: Ticket) -> None:
        if ticket.problem and self._refuses:
            raise Unavailable(CANT, RETRY_S)

    # ── the thread's side ───────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        group: list[Ticket] = []
        while True:
            self._gather(group)
            closing = self._closing
            try:
                with self._chain_lock:
                    self._append(group, closing=closing and len(self._queue) == 0)
            except Exception as error:
                if not isinstance(error, OSError | Damaged | ConfigError):
                    log.exception("a bug in the audit log")
                self._failed(error)
                if closing:
                    # what was taken counts among what is left
                    self._queue.extendleft(reversed(group))
                    return
            else:
                self._worked(group)
                group.clear()
                if closing and not self._queue:
                    return

    def _gather(self, group: list[Ticket]) -> None:
        """Wait until there is something to do, and take it."""
        if self.counts.failing:
            if not self._closing:
                self._hurry.clear()
                self._hurry.wait(RETRY_S)
        else:
            self._awake.wait(self._until_checkpoint_s())
            if not self._closing and not self._hurry.is_set():
                self._hurry.wait(GATHER_S)
        self._hurry.clear()
        self._awake.clear()
        while self._queue and len(group) < MAX_GROUP:
            group.append(self._queue.popleft())
        if self._queue:
            self._awake.set()

    def _until_checkpoint_s(self) -> float | None:
        if not self._chain.unsigned:
            return None
        age_s = (time.time_ns() - self._chain.place.checkpoint_ns) / 1e9
        return min(max(self.settings.checkpoint_secs - age_s, 0.0), self.settings.checkpoint_secs)

    def _take_key(self) -> None:
        if self._key is not None:
            self._chain.rekey(self._key())
            self._key = None

    def _append(self, group: list[Ticket], *, closing: bool) -> None:
        self._take_key()
        if (signer := self._next_signer) is not None:
            self._chain.rekey(signer)
        entries: list[Entry] = []
        if self.counts.failing or self._lost:
            fields = {"lost": self._lost, "problem": self._problem[:200]}
            entries.append(("resumed", time.time_ns(), fields))
        for ticket in group:
            entries.append(("event", ticket.time_ns, cleaned(ticket.event)))
        lost, before = self._lost, self._chain.place.checkpoint
        written = self._chain.append(entries, checkpoint=closing)
        if signer is self._next_signer:
            self._next_signer = None
        with self._lock:
            self._lost -= lost
        self.counts.records += written
        self.counts.groups += written > 0
        if self._chain.place.checkpoint != before:
            place = self._chain.place
            # an anchor outside of the folder, for `penstock audit verify --at-least`
            log.info("audit checkpoint %d:%s", place.seq, place.last)

    def _worked(self, group: list[Ticket]) -> None:
        if self.counts.failing:
            log.warning("audit records can be written again")
        with self._lock:
            self.counts.failing = False
            self._problem = ""
            for ticket in group:
                ticket.settled = True
            wakes = [wake for ticket in group for wake in self._waiters.pop(ticket, ())]
        _call(wakes)

    def _failed(self, error: Exception) -> None:
        """Nobody is left waiting: what is done without a record is the policy's to say. The records are tried again."""
        with self._lock:
            self._problem = self._text(error)
            self.counts.failing = True
            for ticket in self._waiters:
                ticket.problem = self._problem
            wakes = [wake for waiting in self._waiters.values() for wake in waiting]
            self._waiters.clear()
        self._say()
        _call(wakes)

    def _text(self, error: Exception) -> str:
        if isinstance(error, OSError):
            return f"{self.settings.folder}: {error.strerror or type(error).__name__}"
        if isinstance(error, ConfigError):
            return str(error)
        if isinstance(error, Damaged):
            return f"{self.settings.folder}: {error}"
        return type(error).__name__

    def _say(self) -> None:
        """Loudly, but not with each request."""
        now = time.monotonic()
        if now - self._loud_at < LOUD_S:
            return
        self._loud_at = now
        doing = "what has to be recorded is refused" if self._refuses else "the server goes on"
        why = self._problem or "they come faster than they can be written"
        log.error("audit records can't be written: %s: %s", why, doing)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _call(wakes: list[Callable[[], None]]) -> None:
    for wake in wakes:
        try:
            wake()
        except RuntimeError:
            # its event loop has ended
            log.debug("nobody waits for an audit record any more")
