"""Moves events from the data plane's rings into the daemon, in bounded bites.

An order never waits long behind a flood of events: a bite ends after ``BITE_NS`` or when the rings are empty, and
between two bites the loop serves everybody else, once. While an order is being carried out in another thread we also
rest between bites: each of its system calls lets go of the interpreter's lock, and against a thread that always wants
it, it would wait for it a whole bite long each time. The rings hold what comes meanwhile.

Rings that do not wake us for each event (flows, forks) are looked at by a timer, which is slow while nothing happens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from killswitch.daemon.delays import Delays
from killswitch.events import Event, Exec

BATCH = 64  # events a call into the data plane
JUDGED_EVERY = 8  # of them, who waited for the first of them may go on
BITE_NS = 1_000_000
LAZY_BUSY = 0.025  # seconds between two looks at rings that do not wake us
LAZY_IDLE = 0.25

log = logging.getLogger("killswitch.pump")


class Source(Protocol):
    def fileno(self) -> int: ...
    def drain(self, limit: int) -> list[Event]: ...
    def judged(self, count: int) -> None: ...


class Pump:
    def __init__(
        self,
        source: Source,
        handle: Callable[[Event], None],
        rest: Callable[[], float] = lambda: 0.0,
        delays: Delays | None = None,
    ) -> None:
        """``rest()``: for how many seconds to keep off between two bites, now; 0 = for one turn of the loop. ``delays``: where
        it is kept how long execs have waited."""
        self._source = source
        self._delays = delays or Delays()
        self._handle = handle
        self._rest = rest
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._again: asyncio.Handle | None = None
        self._idle_looks = 0
        self.events = 0
        self.failures = 0
        self.last_ns = time.monotonic_ns()  # when the rings were last looked at: the watchdog's proof

    def start(self) -> None:
        self._loop.add_reader(self._source.fileno(), self._ready)
        self._look()

    def stop(self) -> None:
        self._loop.remove_reader(self._source.fileno())
        for handle in (self._timer, self._again):
            if handle:
                handle.cancel()
        self._timer = self._again = None

    def _ready(self) -> None:
        if self._again is None:  # one bite a turn: the next is on its way already
            self._bite()

    def _look(self) -> None:
        before = self.events
        self._ready()
        self._idle_looks = 0 if self.events != before else self._idle_looks + 1
        self._timer = self._loop.call_later(LAZY_BUSY if self._idle_looks < 8 else LAZY_IDLE, self._look)

    async def catch_up(self, seconds: float) -> bool:
        """Hand on all that lies in the rings, and serve others between two bites. False when it had no end in this time."""
        end = time.monotonic_ns() + int(seconds * 1e9)
        while self._bite():
            if time.monotonic_ns() >= end:
                return False
            await asyncio.sleep(0)
        return True

    def _bite(self) -> bool:
        """Whether there is more."""
        end = time.monotonic_ns() + BITE_NS
        full = False
        while True:
            batch = self._source.drain(BATCH)
            said = 0
            for number, event in enumerate(batch):
                if number - said == JUDGED_EVERY:
                    self._say(batch, said, number)
                    said = number
                self.events += 1
                try:
                    self._handle(event)
                except Exception:  # one event that we cannot digest must not blind us to the next
                    self.failures += 1
                    log.exception("event not handled: %s", type(event).__name__)
            self._say(batch, said, len(batch))
            full = len(batch) >= BATCH
            self.last_ns = time.monotonic_ns()
            if not full or self.last_ns >= end:
                break
        if full and self._again is None:  # there is more; let the others run first
            if seconds := self._rest():
                self._loop.remove_reader(self._source.fileno())  # it would wake us all the time
                self._again = self._loop.call_later(seconds, self._rested)
            else:
                self._again = self._loop.call_soon(self._more)
        return full

    def _say(self, batch: list[Event], since: int, number: int) -> None:
        """So many of the batch are judged; ``since``: of which so many were said to be before."""
        self._source.judged(number)
        now = time.monotonic_ns()
        for event in batch[since:number]:
            if type(event) is Exec:
                self._delays.usual.add(now - event.time_ns)

    def _rested(self) -> None:
        self._loop.add_reader(self._source.fileno(), self._ready)
        self._more()

    def _more(self) -> None:
        self._again = None
        self._bite()
