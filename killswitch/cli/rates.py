"""What happened between two looks at the daemon: counters become rates. No clock and no screen of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from killswitch.commands import FREE, Containment

if TYPE_CHECKING:
    from killswitch.control.service import Status, WorkloadInfo

SORTS = ("state", "cpu", "packets", "dropped", "events", "name")


@dataclass(frozen=True, slots=True)
class Look:
    """One look: ``at`` in seconds of a clock that only goes on, ``unix`` since 1970."""

    at: float
    unix: float
    status: Status
    workloads: Sequence[WorkloadInfo]


@dataclass(frozen=True, slots=True)
class Row:
    """One workload. Rates are per second over the interval; None = not known (yet)."""

    name: str
    cgroup: str
    observed: Containment
    desired: Containment
    incident: str
    processes: int
    cores: float | None  # CPUs' worth of time that it used
    hashing: float | None  # 0..1
    sent: float | None  # packets
    received: float | None
    dropped: int  # packets, ever: severed or refused
    dropping: float | None
    held: int  # packets, ever: of programs that were not judged yet
    events: float | None
    lost: int  # events, ever

    @property
    def contained(self) -> bool:
        return self.observed != FREE or self.desired != FREE


def rows(before: Look | None, now: Look, sort: str = "state") -> list[Row]:
    """Sorted by ``sort``, one of SORTS; "state": contained ones first, then who uses the most CPU."""
    earlier = {w.id: w for w in before.workloads if w.id} if before else {}
    seconds = now.at - before.at if before else 0.0
    restarted = before is None or before.status.started_unix != now.status.started_unix
    made = [_row(earlier.get(w.id), w, seconds, restarted) for w in now.workloads]
    return sorted(made, key=_KEYS[sort])


def _row(old: WorkloadInfo | None, new: WorkloadInfo, seconds: float, restarted: bool) -> Row:
    def rate(field: str) -> float | None:
        if (
            old is None or seconds <= 0 or (restarted and field == "events")
        ):  # the daemon counts these, the kernel the others
            return None
        grown = getattr(new, field) - getattr(old, field)
        return grown / seconds if grown >= 0 else None

    cpu = rate("cpu_ns") if old and old.cpu_ns >= 0 and new.cpu_ns >= 0 else None
    return Row(
        name=new.name,
        cgroup=new.cgroup,
        observed=new.observed,
        desired=new.desired,
        incident=new.incident,
        processes=new.processes,
        cores=None if cpu is None else cpu / 1e9,
        hashing=None if new.hashing < 0 else new.hashing,
        sent=rate("tx_packets"),
        received=rate("rx_packets"),
        dropped=new.dropped_packets,
        dropping=rate("dropped_packets"),
        held=new.held_packets,
        events=rate("events"),
        lost=new.lost_events,
    )


def per_second(before: Look | None, now: Look) -> float | None:
    """Events of all workloads."""
    if before is None or before.status.started_unix != now.status.started_unix or now.at <= before.at:
        return None
    return max(0, now.status.events - before.status.events) / (now.at - before.at)


_KEYS = {
    "state": lambda r: (not r.contained, -(r.cores or 0.0), r.name, r.cgroup),
    "cpu": lambda r: (-(r.cores or 0.0), r.name, r.cgroup),
    "packets": lambda r: (-((r.sent or 0.0) + (r.received or 0.0)), r.name, r.cgroup),
    "dropped": lambda r: (-(r.dropping or 0.0), -r.dropped, r.name, r.cgroup),
    "events": lambda r: (-(r.events or 0.0), r.name, r.cgroup),
    "name": lambda r: (r.name, r.cgroup),
}
