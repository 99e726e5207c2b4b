"""The reading half of the service: what is watched, what happened, how the daemon is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from killswitch import __version__
from killswitch.commands import FREE
from killswitch.control.service import CapabilityInfo, Health, Holding, IncidentInfo, Status, WorkloadInfo
from killswitch.daemon import proofpolicy
from killswitch.daemon.core import Core
from killswitch.daemon.proof import Keeper
from killswitch.daemon.pump import Pump
from killswitch.daemon.workloads import Absent, Workload
from killswitch.errors import KernelError, TargetError
from killswitch.kernel import cgroupfs, lsm

CHUNK = 64 << 10
DEFAULT_LIMIT = 100
PARTS = ("ring", "ledger", "control", "policy", "dataplane", "budget")  # and the proof


class Queries:
    def __init__(self, core: Core, pump: Pump, keeper: Keeper, *, started_unix: float) -> None:
        self._core = core
        self._keeper = keeper
        self._pump = pump
        self._started_unix = started_unix
        self.armed_ms = 0.0
        self._probing = asyncio.Lock()

    # --- workloads ---

    def workloads(self) -> Sequence[WorkloadInfo]:
        core = self._core
        return [
            *(self.workload_info(w) for w in core.workloads),
            *(self.absent_info(a) for a in core.workloads.absent.values()),
        ]

    def workload_info(self, w: Workload) -> WorkloadInfo:
        core = self._core
        path = core.path_of(w.cgroup)
        try:
            processes, cpu_ns = len(cgroupfs.processes(path)), cgroupfs.cpu_usage_ns(path)
        except KernelError:
            processes, cpu_ns = 0, -1
        hashing = core.engine.hashing(w.id, time.monotonic_ns()) if core.engine else None
        flows = core.plane.flows(w.id) if w.id in core.workloads else None
        return WorkloadInfo(
            id=w.id,
            name=w.name,
            cgroup=w.cgroup,
            policies=tuple(core.compiled.policies[p].name for p in w.policies) if core.compiled else (),
            desired=w.desired,
            observed=core.observed(w),
            processes=processes,
            since_unix=w.since_unix,
            incident=w.incident,
            tx_packets=flows.tx_packets if flows else 0,
            rx_packets=flows.rx_packets if flows else 0,
            dropped_packets=flows.tx_dropped + flows.rx_dropped if flows else 0,
            lost_events=w.lost,
            path=str(path),
            held_packets=flows.tx_held if flows else 0,
            cpu_ns=cpu_ns,
            events=w.events,
            hashing=-1.0 if hashing is None else hashing,
        )

    def absent_info(self, absent: Absent) -> WorkloadInfo:
        """A workload whose cgroup is gone: nothing of it can be observed, so nothing is said to be."""
        path = str(self._core.path_of(absent.cgroup))
        return WorkloadInfo(
            0, absent.name, absent.cgroup, (), absent.desired, FREE, 0, 0.0, absent.incident, 0, 0, 0, 0, path
        )

    # --- incidents ---

    async def incidents(self, *, open_only: bool, limit: int) -> Sequence[IncidentInfo]:
        return await self._core.records.incidents(
            self._core.incidents, open_only=open_only, limit=limit or DEFAULT_LIMIT
        )

    async def incident(self, incident: str) -> IncidentInfo:
        """Raises TargetError."""
        if known := self._core.incidents.get(incident):
            return known.info()
        if found := await self._core.records.incident_of(incident):
            return found
        newest = next(iter(self._core.incidents.newest()), None)
        hint = f"the newest is {newest.id}" if newest else "there is none yet"
        raise TargetError(f"incident {incident!r}: there is none of this id; {hint}")

    async def evidence(self, incident: str) -> AsyncIterator[tuple[str, bytes]]:
        """(file name, chunk) for every file. Raises TargetError when nothing was captured."""
        info = await self.incident(incident)
        folder = Path(info.evidence) if info.evidence else self._core.config.evidence_dir / info.id
        if not folder.is_dir():
            raise TargetError(
                f"incident {info.id}: has no evidence; nothing was captured, or it still is being captured"
            )
        for file in sorted(f for f in folder.rglob("*") if f.is_file() and not f.is_symlink()):
            name = str(file.relative_to(folder))
            with await asyncio.to_thread(file.open, "rb") as handle:
                first = True
                while (chunk := await asyncio.to_thread(handle.read, CHUNK)) or first:
                    first = False
                    yield name, chunk

    # --- the daemon ---

    def status(self) -> Status:
        core = self._core
        return Status(
            version=__version__,
            pid=os.getpid(),
            started_unix=self._started_unix,
            armed_ms=self.armed_ms,
            adopted=core.plane.adopted,
            policies=tuple(p.name for p in proofpolicy.operators(core.compiled)) if core.compiled else (),
            workloads=len(core.workloads),
            contained=sum(w.desired != FREE for w in core.workloads) + len(core.workloads.absent),
            open_incidents=len(core.incidents.open()),
            events=self._pump.events,
            lost=dict(core.lost),
            resident_bytes=resident_bytes(),
            health=self.health(),
            proof=self._keeper.state(),
            repeated=core.repeated,
            host=core.host.info(),
            holding=self.holding(),
            lsm=lsm.told(core.plane.left_out),
        )

    def holding(self) -> Holding:
        plane, delays = self._core.plane, self._core.delays
        held = sum(plane.flows(w.id).tx_held for w in self._core.workloads)
        return Holding(*delays.usual.percentiles(), *delays.late.percentiles(), plane.holds.late, held)

    def health(self) -> tuple[Health, ...]:
        core = self._core
        ledger = core.records.health()
        troubles = {
            "ring": core.stuck.get("ring", ""),
            "ledger": core.stuck.get("ledger", "") or ("" if ledger.ok else ledger.detail),
            "control": core.stuck.get("control", ""),
            "policy": core.policy_problem
            or "; ".join(f"rules on {kind} cannot match: {why}" for kind, why in core.unseen.items()),
            "dataplane": core.stuck.get("dataplane", ""),
            "budget": core.spending.detail() if core.spending.withheld else "",
        }
        fine = {
            "ring": f"{self._pump.events} events read, {sum(core.lost.values())} lost",
            "ledger": ledger.detail,
            "control": "serving",
            "policy": (f"{len(core.compiled.rules)} rules in force" if core.compiled else "none in force yet")
            + (f"; deny on exec kills instead: {core.deny_kills}" if core.deny_kills else ""),
            "dataplane": "adopted" if core.plane.adopted else "loaded",
            "budget": core.spending.detail(),
        }
        parts = (Health(part, not troubles[part], troubles[part] or fine[part]) for part in PARTS)
        return (*parts, self._keeper.health())

    async def capabilities(self) -> Sequence[CapabilityInfo]:
        from killswitch.kernel import probe  # tries many programs: only who asks pays for it

        async with self._probing:  # its answers are kept, but two at a time would be in each other's way
            found = await asyncio.to_thread(probe.capabilities)
        stronger = lsm.strengthened(self._core.plane.left_out)
        covered = {row for promise, why_not in stronger if not why_not for row in promise.covers}
        return [
            *(
                CapabilityInfo(c.name, c.promise, c.available, c.reason)
                for c in found
                if c.available or c.name not in covered
            ),
            *(
                CapabilityInfo(p.name, p.promise, not why, why or f"in force: {', '.join(p.programs)}")
                for p, why in stronger
            ),
        ]


def resident_bytes() -> int:
    """VmRSS of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
