"""The places of workloads that were contained as their cgroups went away: held, so that what comes back finds itself cut off."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from killswitch.commands import FREE, Containment
from killswitch.daemon.log import fields
from killswitch.daemon.workloads import Absent, Workload
from killswitch.errors import KernelError
from killswitch.kernel import cgroupfs

if TYPE_CHECKING:
    from killswitch.daemon.core import Core

log = logging.getLogger("killswitch")


class Places:
    """A place is left, held, taken again, and forgotten when an operator releases it."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def left(self, w: Workload) -> bool:
        """Its cgroup was removed, and it is off the list. Whether its place is held for what comes back: what was terminated has
        ended, which is what was wanted; what was cut off is cut off again."""
        core = self._core
        lasting = Containment(w.desired.severed, w.desired.frozen)
        if lasting != FREE:
            absent = core.workloads.absent[w.cgroup] = Absent(w.name, w.cgroup, lasting, w.incident, w.explicit)
            core.records.absent(absent, "its cgroup was removed")
            core.spawn(self._hold(absent), f"hold the place of {w.name}")
        elif w.desired != FREE:
            w.desired = FREE
            core.records.desired(w, "terminated, and its cgroup was removed")
        return lasting != FREE

    async def _hold(self, absent: Absent) -> None:
        """Make the cgroup again, empty and severed: what a service manager starts there next finds itself cut off. Not where the
        parent is gone too: then somebody has cleared up, and what comes back is contained when it is seen."""
        core = self._core
        if core.workloads.absent.get(absent.cgroup) is not absent:
            return  # it is back already, or was released
        try:
            made = self._make(core.path_of(absent.cgroup))
            core.watch(absent.cgroup).made = made
        except (OSError, KernelError) as e:
            log.warning("its place is not held %s", fields(workload=absent.name, cgroup=absent.cgroup, error=e))

    def _make(self, path: Path) -> bool:
        """False: somebody was first."""
        try:
            path.mkdir()
        except FileExistsError:
            return False
        return True

    def vacate(self, w: Workload) -> None:
        """It was released: a place in which nothing has ever run, and which we have made, goes, for nobody else would ever remove
        it. The kernel keeps what is in use."""
        path = self._core.path_of(w.cgroup)
        if not (w.made and w.awaited and w.desired == FREE):
            return
        try:
            if cgroupfs.cgroup_id(path) == w.id:
                path.rmdir()
                log.info("let go of the place of %s", fields(workload=w.name, cgroup=w.cgroup))
        except (OSError, KernelError) as e:
            log.info("the place of %s stays, somebody uses it", fields(workload=w.name, cgroup=w.cgroup, error=e))

    def taken_again(self, w: Workload, absent: Absent) -> None:
        """There is a cgroup in the place again, ours or somebody's: it is contained as the one before was."""
        core = self._core
        del core.workloads.absent[absent.cgroup]
        w.incident = absent.incident
        w.awaited = not cgroupfs.populated(core.path_of(w.cgroup))
        if core.engine:
            core.engine.workloads.adopt(w.id, absent.desired, incident=absent.incident, captured=True)
        log.warning(
            "%s is back and is contained again", fields(workload=w.name, cgroup=w.cgroup, desired=absent.desired)
        )
        core.spawn(core.contain(w, absent.desired, capture=False, reason="its cgroup came back"), f"contain {w.name}")

    def arrived(self, workload: int) -> None:
        """Something runs where a place was held."""
        core = self._core
        w = core.workloads.get(workload)
        if w and w.awaited:
            w.awaited = False
            core.spawn(core.contain(w, w.desired, capture=False, reason="it came back"), f"contain {w.name}")

    def look(self, w: Workload) -> None:
        """Whether something was moved where a place was held, and came not by an exec that would have told."""
        if w.awaited and cgroupfs.populated(self._core.path_of(w.cgroup)):
            w.awaited = False

    def forget(self, absent: Absent, reason: str) -> None:
        """Release what is not there any more: what comes back at its path will be free."""
        core = self._core
        del core.workloads.absent[absent.cgroup]
        core.spending.released(absent.cgroup)
        core.records.absent(replace(absent, desired=FREE), reason)
        if incident := core.incidents.get(absent.incident):
            core.let_go(incident)
