"""How much data a process takes in or gives out for each second of CPU time: what tells a checksum from proof-of-work.

Counted is what moves: reads (whatever call), page-ins of mapped files, writes, and the workload's network when the process
holds a socket. It is credited only as far as it can be *different* data: between two readings with the same sources
open, no more than these hold. So one file read again and again, or /dev/zero, is no input, however often it is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.machinecode import Code, Source, Surroundings

MIN_CPU_NS = 100_000_000  # less CPU time between two readings gives no rate
FAULT_BYTES = 64 << 10  # Linux maps that much around a fault in a mapped file (fault_around_bytes)


@dataclass(frozen=True, slots=True)
class Intake:
    """``rate``: bytes for each second of CPU time. ``decoy``: bytes a second that were read but can be no data."""

    rate: float = 0.0
    decoy: float = 0.0


def intake(code: Code, previous: Code | None) -> Intake:
    """Since ``previous`` when that is long enough ago, else over the process's whole life."""
    now = code.surroundings
    since = (
        previous is not None and code.cpu_ns - previous.cpu_ns >= MIN_CPU_NS and code.read_bytes >= previous.read_bytes
    )
    before = previous if since else None
    cpu = code.cpu_ns - (before.cpu_ns if before else 0)
    if cpu < MIN_CPU_NS:
        return Intake()
    then = before.surroundings if before else Surroundings()
    read = max(code.read_bytes - (before.read_bytes if before else 0), now.storage_bytes - then.storage_bytes, 0)
    limit = distinct(now.sources, then.sources if before else None)
    taken = read if limit is None else min(read, limit)
    wasted = read - taken
    mapped = {s for s in now.sources if s.kind == "mapped"}
    if mapped:
        if before and mapped == {s for s in then.sources if s.kind == "mapped"}:
            taken += max(0, now.file_resident_bytes - then.file_resident_bytes)
        else:
            taken += min(max(0, now.faults - then.faults) * FAULT_BYTES, sum(s.size for s in mapped))
    if before and any(s.kind == "socket" for s in now.sources):
        taken += max(0, now.network_bytes - then.network_bytes)
    given = 0 if now.discards else max(0, now.written_bytes - then.written_bytes)
    return Intake(max(taken, given) * 1e9 / cpu, wasted * 1e9 / cpu)


def distinct(now: tuple[Source, ...], then: tuple[Source, ...] | None) -> int | None:
    """At most so many different bytes can have come from these sources; None = any number.

    ``then``: what was open at the reading before. Files that come and go, pipes, sockets and devices may give anything.
    """
    here = {s for s in now if s.kind != "mapped"}
    if any(s.kind in ("pipe", "device") for s in here):
        return None
    if not any(s.kind == "zero" for s in here):
        if any(s.kind == "socket" for s in here) or then is None:
            return None
        if not any(s.kind == "file" for s in here):
            return None  # it opens what it reads, and closes it again
    elif then is None:
        return sum(s.size for s in here)
    before = {(s.kind, s.inode) for s in then if s.kind != "mapped"}
    if {(s.kind, s.inode) for s in here} != before:
        return None
    return sum(s.size for s in here)
