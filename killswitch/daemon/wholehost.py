"""``host`` as a target: what is desired of it, its incident, its place in the ledger, and what becomes of the workloads."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from killswitch.commands import FREE, Containment, Outcome, Receipt
from killswitch.config import Config
from killswitch.contain.wholehost import HOST_ID, HostSwitch
from killswitch.control.service import HostInfo, WorkloadInfo
from killswitch.daemon.incidents import Incident
from killswitch.daemon.log import fields
from killswitch.daemon.workloads import Workload
from killswitch.errors import KernelError, Protected
from killswitch.events import WorkloadAdded
from killswitch.kernel.hostcut import Place

if TYPE_CHECKING:
    from killswitch.daemon.core import Core
    from killswitch.daemon.records import KnownWorkload

log = logging.getLogger("killswitch.host")

HOST = "host"  # what it is called, and, in the ledger, its "path": no cgroup's begins so


def place_of(config: Config, core: Core) -> Place | None:
    if config.host_cgroup == "none":
        return None
    return Place(core.path_of(config.host_cgroup), config.host_netns)


class WholeHost:
    """Contained like a workload, level-triggered, but for its processes: those are never frozen. The watched workloads are."""

    def __init__(self, core: Core) -> None:
        self._core = core
        place = place_of(core.config, core)
        self._switch = HostSwitch(core.plane, place, core.config.host_allow, core.guard)
        self.it = Workload(HOST_ID, HOST, HOST, (), True, time.time())
        self._observed = FREE
        self._detail = ""
        # What is repaired is what is desired *then*: a repair under way must not undo a release.
        self._turn = asyncio.Lock()

    @property
    def desired(self) -> Containment:
        return self.it.desired

    # --- orders ---

    async def check(self, *, force: bool) -> None:
        await self._switch.check(force=force)

    async def contain(self, desired: Containment, reason: str) -> list[Receipt]:
        """Cut the host off, and every watched workload with it (``desired.frozen``: frozen as well). ``check`` first."""
        core = self._core
        incident = self.incident_of(reason)
        self.it.desired |= desired
        incident.containment |= desired
        core.records.desired(self.it, reason)
        log.warning("cutting the whole host off %s", fields(desired=desired, incident=incident.id, reason=reason))
        watched = [w for w in core.workloads if not core.is_canary(w.cgroup)]
        workloads = [asyncio.ensure_future(self._with_it(w, reason)) for w in watched]
        receipts = [await self._cut(incident)]
        for found in await asyncio.gather(*workloads):
            receipts += found
        core.records.incident(incident)
        return receipts

    async def release(self, reason: str) -> list[Receipt]:
        """Give the host its network back. The workloads stay as they are: each has an incident, and is released by its name."""
        async with self._turn:
            receipt = await self._switch.release()
            incident = self._core.incidents.get(self.it.incident)
            self._core.receipt(receipt, self.it, incident)
            if receipt.outcome is Outcome.DONE:
                self.it.desired = self._observed = FREE
                self._core.records.desired(self.it, reason)
                self.it.incident = ""
                if incident:
                    self._core.close(incident)
        return [receipt]

    def include(self, w: Workload) -> None:
        """A workload that comes to be watched while the host is cut off."""
        if self.desired != FREE:
            self._core.spawn(self._with_it(w, "the whole host is cut off"), f"contain {w.name}")

    # --- level-triggered ---

    async def restore(self, row: KnownWorkload | None) -> None:
        """Of the ledger's record and the kernel's the stricter wins."""
        if row:
            self.it.desired, self.it.incident = row.desired, row.incident
        if self._switch.is_cut:
            self.it.desired |= Containment(severed=True)
        if self.desired.severed:
            log.warning("the whole host is cut off %s", fields(desired=self.desired, incident=self.it.incident))
            receipt = await self._switch.cut()
            self._observe(receipt)
            if receipt.outcome is not Outcome.DONE:
                log.error("the host is not cut off as it must be: %s", receipt.error)

    async def reconcile(self) -> None:
        if self.desired.severed:
            async with self._turn:
                await self._reconcile()

    async def _reconcile(self) -> None:
        if not self.desired.severed:  # it was released meanwhile
            return
        if receipt := await self._switch.repair():
            log.warning("the host's containment had slipped %s", fields(outcome=receipt.outcome, error=receipt.error))
            self._core.receipt(receipt, self.it, self._core.incidents.get(self.it.incident))
            self._observe(receipt)
        try:
            seen = await self._switch.seen()
        except KernelError as e:
            self._observed, self._detail = FREE, str(e)
        else:
            self._observed = Containment(severed=seen.whole)
            self._detail = f"not guarded: {', '.join(seen.missing)}" if seen.missing else ""

    def take_up_incident(self) -> None:
        """Once the engine is there, which numbers them."""
        if self.desired != FREE:
            incident = self.incident_of("found cut off when the daemon started")
            incident.containment |= self.desired
            self._core.records.incident(incident)
            self._core.records.desired(self.it, "found cut off when the daemon started")

    # --- telling ---

    def info(self) -> HostInfo:
        through = "; ".join(self._switch.words()) if self.desired.severed else ""
        return HostInfo(self.desired, self._observed, self.it.incident, through, self._detail)

    def workload_info(self) -> WorkloadInfo:
        """As an order's answer names it."""
        sent, received = self._core.plane.host.dropped()
        return WorkloadInfo(
            id=HOST_ID,
            name=HOST,
            cgroup="/",
            policies=(),
            desired=self.desired,
            observed=self._observed,
            processes=0,
            since_unix=self.it.since_unix,
            incident=self.it.incident,
            tx_packets=0,
            rx_packets=0,
            dropped_packets=sent + received,
            lost_events=0,
            path=str(self._core.path_of(self._core.config.host_cgroup)),
        )

    def incident_of(self, reason: str) -> Incident:
        core = self._core
        if self.it.incident and (known := core.incidents.get(self.it.incident)) and not known.closed_unix:
            return known
        if core.engine:
            core.engine.workloads.add(WorkloadAdded(time.monotonic_ns(), HOST_ID, HOST, HOST, ()))
            self.it.incident = core.engine.workloads.open_incident(HOST_ID)
            core.engine.workloads.remove(HOST_ID)
        incident = Incident(self.it.incident, HOST_ID, HOST, HOST, reason)
        if incident.id:
            core.incidents.add(incident)
            core.records.incident(incident)
            log.warning("incident opened %s", fields(incident=incident.id, workload=HOST, reason=reason))
        return incident

    def close(self) -> None:
        self._switch.close()

    async def _cut(self, incident: Incident) -> Receipt:
        async with self._turn:
            receipt = await self._switch.cut()
            self._observe(receipt)
        self._core.receipt(receipt, self.it, incident)
        return receipt

    def _observe(self, receipt: Receipt) -> None:
        self._observed = Containment(severed=receipt.outcome is Outcome.DONE)
        self._detail = receipt.error

    async def _with_it(self, w: Workload, reason: str) -> list[Receipt]:
        """A protected one is left as it is, and said so: it is the operators' own."""
        frozen = self.desired.frozen
        try:
            return await self._core.contain(
                w, Containment(True, frozen), capture=frozen, reason=f"the whole host: {reason}"
            )
        except Protected as e:
            log.warning("left as it is, though the whole host is cut off: %s", e)
            return []
