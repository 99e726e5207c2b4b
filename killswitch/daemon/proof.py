"""Keeps the proof fresh: runs the self-test when asked and on a timer, and tells what the last one showed, and how old it is.

Each is an order in the ledger, also those of the timer: so the audit has them, and their age outlives the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from killswitch.commands import Finding, Level, Mode, Outcome, Receipt, Response, Step
from killswitch.control.service import Health, Order, Proof, StreamItem
from killswitch.daemon import selftest
from killswitch.daemon.core import Core
from killswitch.daemon.log import fields
from killswitch.daemon.workloads import Workload
from killswitch.events import Tick

log = logging.getLogger("killswitch.proof")

VERB = "selftest"
OUTCOMES = ("complete", "partial", "failed")
SOON = (1.0, 4.0)  # seconds from being armed to the first proof: not all daemons of a fleet at the same moment
JITTER = 0.1  # of the interval, each way
AGAIN = 60.0  # seconds after a proof that failed: was it the moment, or is it the switch? Then twice as long each time
STALE = 2.0  # intervals without a proof, after which the last one is too old to rely on
MARGIN = 60.0  # seconds on top
LOOK = 0.1  # seconds; a kill that is under way goes first


@dataclass(frozen=True, slots=True)
class Last:
    """What one proof came to."""

    at_unix: float
    ok: bool
    detail: str


def judge(receipts: Sequence[Receipt]) -> tuple[str, str]:
    """(complete, partial or failed; what was wrong). It has failed when halting or letting go was not seen; something that
    could not be tried, or tidied up, makes it partial."""
    wrong = [r for r in receipts if r.outcome is not Outcome.DONE]
    detail = "; ".join(f"{r.step}: {r.error}" for r in wrong)
    failed = any(r.outcome is Outcome.FAILED and r.step is not Step.CLEAN_UP for r in wrong)
    if failed or not any(r.step is Step.SILENCE for r in receipts):
        return "failed", detail or "nothing was seen"
    return ("partial", detail) if wrong else ("complete", "")


class Keeper:
    """``every``: seconds between two proofs, 0 = only when asked. One proof at a time."""

    def __init__(self, core: Core, every: float) -> None:
        self._core, self._every = core, every
        self._one = asyncio.Lock()
        self._since = time.time()
        self._due = 0.0
        self._stopping = False
        self._failed = 0  # times on end
        last, good = core.records.last_order(VERB, *OUTCOMES), core.records.last_order(VERB, OUTCOMES[0])
        self._last = Last(last.time_unix, last.outcome == OUTCOMES[0], last.error) if last else Last(0.0, False, "")
        self._good = good.time_unix if good else 0.0

    # --- proving ---

    async def prove(self, order: Order) -> tuple[str, Workload, list[Receipt]]:
        """(order id, the canary's workload, receipts). What it comes to is kept, and told when it is bad."""
        core = self._core
        async with self._one, core.steady:
            order_id = f"ord-{uuid.uuid4().hex[:12]}"
            core.records.order(order_id, VERB, order, None, "")
            started = time.time()
            w, receipts = await selftest.run(core, self._follow)
            outcome, detail = judge(receipts)
            if self._stopping and outcome != "complete":  # who stops reads no more events: it shows nothing
                core.records.order_done(order_id, "accepted", "cut short: the daemon was stopped")
                return order_id, w, receipts
            core.records.order_done(order_id, outcome, detail)
            self._note(Last(started, outcome == "complete", detail), time.time() - started, order.reason)
        return order_id, w, receipts

    def _follow(self, receipt: Receipt) -> None:
        item = StreamItem(receipt=receipt, workload_name=selftest.NAME)
        self._core.streams.publish(item, receipt.workload)

    def _note(self, last: Last, seconds: float, reason: str) -> None:
        before, self._last = self._last, last
        self._failed = 0 if last.ok else self._failed + 1
        if last.ok:
            self._good = last.at_unix
            level = logging.WARNING if before.at_unix and not before.ok else logging.INFO
            log.log(level, "the switch is proven to halt %s", fields(ms=f"{seconds * 1e3:.0f}", reason=reason))
            return
        log.critical("THE SWITCH IS NOT PROVEN TO HALT %s", fields(why=last.detail, reason=reason))
        if before.ok or before.detail != last.detail:
            self._alert(last)

    def _alert(self, last: Last) -> None:
        """A finding like any other: who follows findings is told without asking for health."""
        core, now = self._core, time.monotonic_ns()
        finding = Finding(
            now,
            0,
            "built-in",
            "not-proven",
            "The self-test did not show that the switch can halt",
            Level.CRITICAL,
            Mode.ENFORCE,
            (Response.ALERT,),
            (),
            0,
            0,
            f"the switch is not proven to halt: {last.detail}",
            Tick(now),
        )
        core.records.finding(finding, "")
        core.streams.publish(StreamItem(finding=finding, workload_name=selftest.NAME), 0)

    # --- the timer ---

    async def keep(self) -> None:
        """For ever: soon after the start, then at each interval, a failed one once more after a moment."""
        if not self._every:
            return
        wait = random.uniform(*SOON)
        while True:
            self._due = time.time() + wait
            await asyncio.sleep(wait)
            while self._core.switch.urgent:
                await asyncio.sleep(LOOK)
            order = Order(f"proof-{uuid.uuid4()}", "host", "timer", "daemon")
            try:
                # A task of its own: one that has begun is finished, so that nothing of it is left.
                await asyncio.shield(self._core.spawn(self.prove(order), "the timer's self-test"))
            except asyncio.CancelledError:
                self._stopping = True
                raise
            except Exception as e:
                log.exception("the self-test has failed in a way nobody foresaw", exc_info=e)
                self._note(Last(time.time(), False, f"it could not be carried out: {e}"), 0.0, "timer")
            wait = self._every * random.uniform(1 - JITTER, 1 + JITTER)
            if self._failed:
                wait = min(AGAIN * 2.0 ** min(self._failed - 1, 20), wait)

    # --- telling ---

    def state(self) -> Proof:
        last, now = self._last, time.time()
        limit = STALE * self._every + MARGIN
        fresh = not self._every or now - max(last.at_unix, 0.0 if last.at_unix else self._since) <= limit
        return Proof(last.at_unix, last.ok, fresh, last.detail, self._good, self._due, self._every)

    def health(self) -> Health:
        """Not well when the last proof was bad, or is too old. Before the first one nothing is known to be wrong."""
        p = self.state()
        ago = f"{_span(time.time() - p.at_unix)} ago"
        if not p.fresh:
            told = f"the last was {ago}" if p.at_unix else "there was none yet"
            return Health("proof", False, f"too old: {told}, and one is due every {_span(self._every)}")
        if not p.at_unix:
            due = "the first is due" if self._every else "none was asked for (killswitch selftest)"
            return Health("proof", True, f"not proven yet: {due}")
        return Health("proof", p.ok, f"{'passed' if p.ok else 'FAILED'} {ago}{f': {p.detail}' if p.detail else ''}")

    def line(self) -> str:
        """For the service manager's status."""
        core, p = self._core, self.state()
        contained = sum(bool(w.desired.severed or w.desired.frozen) for w in core.workloads)
        if not p.at_unix:
            told = "not proven yet"
        elif not p.ok:
            told = f"PROOF FAILED at {_clock(p.at_unix)}: {p.detail}"
        else:
            told = f"{'proven' if p.fresh else 'PROOF TOO OLD: last proven'} at {_clock(p.at_unix)}"
        return f"armed, {len(core.workloads)} workloads watched, {contained} contained; {told}"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _clock(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))
