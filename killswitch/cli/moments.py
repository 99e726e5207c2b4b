"""When it was: the kernel's monotonic nanoseconds as the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.commands import Finding, Receipt
    from killswitch.control.service import IncidentInfo


def wall_clock(unix: float, *, date: bool = False) -> str:
    """Local time to the millisecond; with ``date``, date and time to the second and the zone."""
    local = time.localtime(unix)
    if date:
        return time.strftime("%Y-%m-%d %H:%M:%S %Z", local)
    return time.strftime("%H:%M:%S", local) + f".{int(unix % 1 * 1000):03d}"


def boot_offset() -> float:
    """What to add to this boot's CLOCK_MONOTONIC, in seconds, to get seconds since 1970."""
    return time.time() - time.monotonic()


def history(incident: IncidentInfo) -> Iterator[tuple[float, Finding | Receipt]]:
    """(seconds since 1970, finding or receipt) of an incident, in order of time.

    An incident may be older than this boot, whose monotonic clock then says nothing about it: so it is dated by its own
    opening, which is its first finding or receipt.
    """
    items: list[tuple[int, Finding | Receipt]] = [(f.time_ns, f) for f in incident.findings]
    items += [(r.started_ns, r) for r in incident.receipts]
    items.sort(key=lambda item: item[0])
    for at, item in items:
        yield incident.opened_unix + (at - items[0][0]) / 1e9, item
