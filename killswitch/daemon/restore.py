"""The first thing a daemon does: find out what was contained, by the kernel's record and the ledger's, and see that it still is.

Of two records the stricter wins. A lost ledger loses no containment, and neither does a reboot, which loses the kernel's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import replace

from killswitch.commands import FREE, Containment
from killswitch.daemon.core import Core
from killswitch.daemon.log import fields
from killswitch.daemon.records import KnownWorkload
from killswitch.daemon.wholehost import HOST
from killswitch.daemon.workloads import Absent, Workload
from killswitch.errors import Gone, KernelError, Protected
from killswitch.events import boot_id
from killswitch.kernel import cgroupfs

log = logging.getLogger("killswitch.restore")


async def restore(core: Core, recorded: Iterable[KnownWorkload]) -> None:
    """Fill ``core.workloads`` and bring what is contained back under containment. No policy is needed for that."""
    by_id = {r.id: r for r in recorded if r.boot_id == boot_id()}
    by_path = {r.cgroup: r for r in recorded}
    for number, pinned in core.plane.workloads().items():
        row = by_id.get(number)
        try:
            path = cgroupfs.path_of(number)
        except Gone:
            core.plane.unwatch(number)
            if row:
                _hold_place(core, row, pinned.containment | row.desired)
            elif pinned.containment != FREE:
                log.warning("a contained cgroup (id %d) is gone, and the ledger does not know its path", number)
            continue
        cgroup = "/" + str(path.relative_to(core.mount))
        row = row or by_path.get(cgroup)
        # What the kernel cut off by itself is no order: policies say what becomes of it (Reactor.look_after).
        ordered = replace(pinned.containment, severed=pinned.containment.severed and not pinned.unattended)
        _adopt(core, number, cgroup, row, ordered)
    for row in by_path.values():  # of an earlier boot, or the pins are gone
        if core.workloads.at(row.cgroup) or row.cgroup in core.workloads.absent:
            continue
        try:
            number = cgroupfs.cgroup_id(core.path_of(row.cgroup))
            core.plane.watch(number, core.path_of(row.cgroup), 0)
        except Gone:
            _hold_place(core, row, row.desired)
        except KernelError as e:
            log.error("not watched again %s", fields(workload=row.name, cgroup=row.cgroup, error=e))
            _keep_absent(core, row, row.desired)
        else:
            _adopt(core, number, row.cgroup, row, FREE)
    # All at once: each is severed before any is waited for.
    await asyncio.gather(*(_contain(core, w) for w in core.workloads if w.desired != FREE))


async def _contain(core: Core, w: Workload) -> None:
    """Cut off at once what was cut off; what ends is left to ``carry_on``. One that cannot be contained must not keep the others
    from being it."""
    log.warning("contained %s", fields(workload=w.name, cgroup=w.cgroup, desired=w.desired, incident=w.incident))
    incident = core.incidents.get(w.incident)
    try:
        w.awaited = not cgroupfs.populated(core.path_of(w.cgroup))
        await core.switch.contain(
            core.ref(w),
            replace(w.due, terminated=False),
            capture=False,
            incident=w.incident,
            on_receipt=lambda r: core.receipt(r, w, incident),
        )
    except (Protected, KernelError) as e:
        log.error("not contained again %s", fields(workload=w.name, cgroup=w.cgroup, desired=w.desired, error=e))


def take_up_incidents(core: Core) -> None:
    """Go on with the incidents that were open when the last daemon ended, and tell the engine, which is new, of what is
    contained. Every contained workload has an incident, also when the ledger was lost."""
    assert core.engine
    present = {w.cgroup: w for w in core.workloads}
    for incident in core.incidents.open():
        w = present.get(incident.cgroup)
        if w and w.incident in ("", incident.id):
            w.incident, incident.workload = incident.id, w.id
        elif incident.cgroup == HOST and core.host.desired != FREE:
            core.host.it.incident = incident.id
        elif incident.cgroup not in core.workloads.absent:
            core.close(incident)
    core.host.take_up_incident()
    for w in core.workloads:
        if w.incident or w.desired != FREE:
            core.engine.workloads.adopt(w.id, w.desired, incident=w.incident, captured=w.desired != FREE)
            incident = core.incident_of(w, "found contained when the daemon started")
            incident.containment |= w.desired
            if incident.opened_unix >= time.time() - time.clock_gettime(time.CLOCK_BOOTTIME):
                # Findings of an earlier boot have times that mean nothing now, and their processes are gone.
                core.engine.recall(w.id, incident.findings)
            core.records.incident(incident)
        if w.desired != FREE:
            core.records.desired(w, "found contained when the daemon started")


def carry_on(core: Core) -> None:
    """Finish the kills that were cut short: evidence that is not captured yet, and then the end, where that was ordered. What is
    terminated without would never have any. Every contained workload has its incident by now."""
    for w in core.workloads:
        incident = core.incidents.get(w.incident)
        killed = w.desired.terminated or (w.desired.severed and w.desired.frozen)
        capture = killed and incident is not None and not incident.evidence and not w.awaited
        if capture or w.desired.terminated:
            work = core.contain(w, w.desired, capture=capture, reason="a kill that was cut short is carried on")
            core.spawn(work, f"carry on with the kill of {w.name}")


def _adopt(core: Core, number: int, cgroup: str, row: KnownWorkload | None, pinned: Containment) -> None:
    w = core.workloads.add(number, cgroup, (), name=row.name if row else "", explicit=bool(row and row.explicit))
    w.desired = pinned | (row.desired if row else FREE)
    if row:
        w.incident, w.since_unix = row.incident, row.since_unix or w.since_unix


def _hold_place(core: Core, row: KnownWorkload, desired: Containment) -> None:
    """Make the cgroup of what was contained, empty, so that it is contained before anything runs in it: after a reboot services
    find it so, since they start behind the daemon."""
    lasting = Containment(desired.severed, desired.frozen)
    path = core.path_of(row.cgroup)
    if lasting == FREE:
        return _keep_absent(core, row, desired)
    try:
        number = cgroupfs.create(path)
        core.plane.watch(number, path, 0)
    except KernelError as e:
        log.error("its place is not held %s", fields(workload=row.name, cgroup=row.cgroup, error=e))
        return _keep_absent(core, row, desired)
    _adopt(core, number, row.cgroup, replace(row, desired=lasting), FREE)
    if held := core.workloads.get(number):
        held.made = True


def _keep_absent(core: Core, row: KnownWorkload, desired: Containment) -> None:
    lasting = Containment(desired.severed, desired.frozen)
    if lasting == FREE:  # an operator had asked to watch it, and it is not there any more
        core.records.workload_gone(row.cgroup, "its cgroup is gone")
    else:
        core.workloads.absent[row.cgroup] = Absent(row.name, row.cgroup, lasting, row.incident, row.explicit)
