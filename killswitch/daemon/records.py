"""What the daemon knows, as the ledger keeps it. Nothing here blocks or raises but what is marked ``async``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from killswitch.commands import FREE, Containment, Finding, Level, Receipt
from killswitch.control.service import IncidentInfo, Order
from killswitch.daemon.incidents import Incident, Incidents
from killswitch.daemon.workloads import Absent, Workload
from killswitch.errors import LedgerError
from killswitch.events import boot_id
from killswitch.ledger import (
    ChargeRecord,
    Desired,
    IncidentRecord,
    Ledger,
    LedgerHealth,
    OrderRecord,
    ProgramRecord,
    WorkloadRecord,
)
from killswitch.ledger import Incident as KeptIncident

log = logging.getLogger("killswitch.records")

FLUSH = 5.0  # seconds that a stop waits for the disk
ANSWER = 2.0  # seconds that an answer waits for a slow disk; what was ordered is done by then
UNANSWERED = 256  # orders whose outcome is known that are waited for to be answered


@dataclass(frozen=True, slots=True)
class KnownWorkload:
    """What the ledger tells of one cgroup path: that it was watched, how it is to be contained, or both."""

    cgroup: str
    id: int
    boot_id: str
    name: str
    explicit: bool
    since_unix: float
    desired: Containment
    incident: str


class Records:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._orders: dict[str, OrderRecord] = {}  # that are being carried out
        self._done: OrderedDict[str, OrderRecord] = OrderedDict()  # by request_id

    # --- writing ---

    def workload(self, w: Workload, policies: Sequence[str] = ()) -> None:
        self._ledger.put_workload(
            WorkloadRecord(w.cgroup, w.id, boot_id(), w.name, tuple(policies), w.explicit, w.since_unix)
        )

    def workload_gone(self, cgroup: str, reason: str) -> None:
        self._ledger.forget_workload(cgroup, reason)

    def desired(self, w: Workload, reason: str) -> None:
        self._desired(w.cgroup, w.id, w.name, w.desired, w.incident, reason)

    def absent(self, absent: Absent, reason: str) -> None:
        """What is wanted of a workload that is gone; ``absent.desired`` free forgets it."""
        self._desired(absent.cgroup, 0, absent.name, absent.desired, absent.incident, reason)

    def _desired(self, cgroup: str, number: int, name: str, desired: Containment, incident: str, reason: str) -> None:
        self._ledger.put_desired(Desired(cgroup, number, boot_id(), name, desired, incident, reason, time.time()))

    def incident(self, i: Incident) -> None:
        self._ledger.put_incident(
            IncidentRecord(
                id=i.id,
                workload=i.workload,
                workload_name=i.workload_name,
                cgroup=i.cgroup,
                opened_unix=i.opened_unix,
                closed_unix=i.closed_unix,
                reason=i.reason,
                level=str(i.level or ""),
                containment=i.containment,
                evidence=i.evidence,
                boot_id=boot_id(),
                after=i.after,
            )
        )

    def finding(self, finding: Finding, incident: str) -> None:
        self._ledger.put_finding(incident, finding)

    def receipt(self, receipt: Receipt, incident: str) -> None:
        self._ledger.put_receipt(incident, receipt)

    def order(self, order_id: str, verb: str, order: Order, w: Workload | None, incident: str) -> None:
        record = OrderRecord(
            order_id,
            order.request_id,
            verb,
            order.target,
            order.reason,
            order.role,
            time.time(),
            w.id if w else 0,
            incident,
        )
        self._orders[order_id] = record
        self._ledger.put_order(record)

    def order_done(self, order_id: str, outcome: str, error: str = "") -> None:
        """``outcome``: complete, partial or failed."""
        record = replace(self._orders.pop(order_id), outcome=outcome, error=error)
        self._ledger.put_order(record)
        self._done[record.request_id] = record
        if len(self._done) > UNANSWERED:
            self._done.popitem(last=False)

    async def answered(self, request_id: str, content: str, answer: str) -> None:
        """Keep what was answered; comes back when it is on disk, or when that takes too long."""
        record = self._done.pop(request_id, None)
        if record is None:
            return
        self._ledger.put_order(replace(record, content=content, answer=answer))
        if self._ledger.health().ok:
            written = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER):
                    written = await asyncio.to_thread(self._ledger.flush, ANSWER)
            if not written and self._ledger.health().ok:  # of a disk that fails the ledger itself tells
                log.warning("answered before it is on disk, which is slow: order=%s", record.order_id)

    def charge(self, record: ChargeRecord) -> None:
        self._ledger.put_charge(record)

    def charge_forgotten(self, cgroup: str, reason: str) -> None:
        self._ledger.forget_charge(cgroup, reason)

    def program(self, record: ProgramRecord) -> None:
        self._ledger.put_program(record)

    def program_forgotten(self, sha256: str, reason: str) -> None:
        self._ledger.forget_program(sha256, reason)

    def note(self, what: str, **detail: str | int | float | bool) -> None:
        self._ledger.note(what, detail)

    # --- reading ---

    def programs(self) -> dict[str, ProgramRecord]:
        return self._ledger.programs()

    def charges(self) -> dict[str, ChargeRecord]:
        return self._ledger.charges()

    def known_workloads(self) -> list[KnownWorkload]:
        watched, desired = self._ledger.workloads(), self._ledger.desired()
        found = []
        for cgroup in watched.keys() | desired.keys():
            w, d = watched.get(cgroup), desired.get(cgroup)
            source = w or d
            assert source is not None
            found.append(
                KnownWorkload(
                    cgroup=cgroup,
                    id=source.cgroup_id,
                    boot_id=source.boot_id,
                    name=source.name,
                    explicit=bool(w and w.explicit),
                    since_unix=w.since_unix if w else 0.0,
                    desired=d.containment if d else FREE,
                    incident=d.incident if d else "",
                )
            )
        return found

    def next_incident(self, evidence_dir: Path) -> int:
        """A number that no incident has had. A lost ledger forgets them, but evidence of theirs may still lie there."""
        kept = (p.name.removeprefix("inc-") for p in evidence_dir.glob("inc-*"))
        return max(self._ledger.next_incident(), *(int(n) + 1 for n in kept if n.isdecimal()), 1)

    def open_incidents(self) -> list[Incident]:
        """Oldest first. A ledger that cannot be read has none to tell of, and says so in the log."""
        try:
            return [_live(kept) for kept in reversed(self._ledger.incidents(open_only=True, limit=0))]
        except LedgerError as e:
            log.error("open incidents not read: %s", e)
            return []

    def closed_incidents(self, limit: int) -> list[Incident]:
        """The latest of this boot, oldest first: what an operator has let go of is not to be found again in what ran then."""
        try:
            kept = [i for i in self._ledger.incidents(limit=limit) if i.record.closed_unix]
        except LedgerError as e:
            log.error("closed incidents not read: %s", e)
            return []
        return [_live(i) for i in reversed(kept) if i.record.boot_id == boot_id()]

    async def incidents(self, live: Incidents, *, open_only: bool, limit: int) -> list[IncidentInfo]:
        """Newest first: what is in memory is the present, the ledger has the rest. Raises LedgerError."""
        found = {i.id: i.info() for i in live.newest() if not (open_only and i.closed_unix)}
        if not open_only and len(found) < limit:
            for kept in await asyncio.to_thread(self._ledger.incidents, open_only=False, limit=limit):
                found.setdefault(kept.record.id, _live(kept).info())
        return sorted(found.values(), key=lambda i: i.opened_unix, reverse=True)[:limit]

    async def incident_of(self, incident: str) -> IncidentInfo | None:
        """Raises LedgerError."""
        kept = await asyncio.to_thread(self._ledger.incident, incident)
        return _live(kept).info() if kept else None

    async def verify(self) -> tuple[bool, str]:
        await asyncio.to_thread(self._ledger.flush, FLUSH)
        return await asyncio.to_thread(self._ledger.verify)

    def request_ids(self, limit: int) -> set[str]:
        """Of the latest orders. A ledger that cannot be read has none to tell of, and says so in the log."""
        try:
            return self._ledger.request_ids(limit)
        except LedgerError as e:
            log.error("orders of before not read: %s", e)
            return set()

    def last_order(self, verb: str, *outcomes: str) -> OrderRecord | None:
        """The latest of this kind that came to one of these. A ledger that cannot be read has none, and says so in the log."""
        try:
            return self._ledger.last_order(verb, outcomes)
        except LedgerError as e:
            log.error("orders of before not read: %s", e)
            return None

    async def order_of(self, request_id: str) -> OrderRecord | None:
        """Raises LedgerError."""
        return await asyncio.to_thread(self._ledger.order, request_id)

    def health(self) -> LedgerHealth:
        return self._ledger.health()

    async def alive(self) -> bool:
        """Whether the writer's thread answers. A disk that is full makes the ledger unhealthy, but not stuck."""
        return await asyncio.to_thread(self._ledger.alive, FLUSH)

    async def close(self) -> None:
        await asyncio.to_thread(self._ledger.close, FLUSH)


def _live(kept: KeptIncident) -> Incident:
    r = kept.record
    return Incident(
        id=r.id,
        workload=r.workload,
        workload_name=r.workload_name,
        cgroup=r.cgroup,
        reason=r.reason,
        opened_unix=r.opened_unix,
        closed_unix=r.closed_unix,
        level=Level(r.level) if r.level else None,
        containment=r.containment,
        findings=list(kept.findings),
        receipts=list(kept.receipts),
        evidence=r.evidence,
        after=r.after,
    )
