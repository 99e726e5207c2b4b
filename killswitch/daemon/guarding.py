"""Who is protected, kept in step with the kernel: whom no verdict may kill, which workloads none may sever, and which cgroups are
too wide to be one workload."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from killswitch.contain.protected import SSHD, Kept, contains
from killswitch.daemon.log import fields
from killswitch.errors import Gone, KernelError
from killswitch.events import CgroupMove, Exec

if TYPE_CHECKING:
    from killswitch.daemon.core import Core
    from killswitch.daemon.workloads import Workload

log = logging.getLogger("killswitch.guard")

EVERY_S = 4.0
_SSHD = tuple(name.encode() for name in SSHD)


class Guarding:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._places: list[tuple[Kept, str]] = []
        # A workload that is shielded is no place where somebody makes himself untouchable: whoever is there is so already.
        core.guard.watched = self._unshielded
        self._told: set[int] = set()
        core.guard.refresh()
        self._look()

    def _unshielded(self) -> frozenset[int]:
        plane = self._core.plane
        return frozenset(c for c in plane.workloads() if not plane.shielded(c))

    async def run(self) -> None:
        """Look again, every few seconds: an operator logs in whenever it suits."""
        while True:
            await asyncio.to_thread(self._core.guard.refresh)
            self.apply()
            await asyncio.sleep(EVERY_S)

    def note(self, event: Exec | CgroupMove) -> None:
        """Something that may be a protected process begins, or comes into a workload: it is not waited for the next look."""
        if isinstance(event, Exec) and event.executable.rpartition(b"/")[2] not in _SSHD:
            return
        if isinstance(event, CgroupMove) and not (event.to_workload and event.moved_by):
            return
        if self._core.guard.note(event.pid):
            self.apply()

    def _look(self) -> None:
        self._places = self._core.guard.places()

    def apply(self) -> None:
        """Tell the kernel."""
        core = self._core
        self._look()
        try:
            core.plane.protect((kept.pid, kept.start_ticks, kept.way_in) for kept, _ in self._places)
        except KernelError as e:
            log.error("protected processes are not known to the kernel: %s", e)
        for w in core.workloads:
            self.shield(w)

    def shield(self, w: Workload) -> None:
        """Whether no verdict, and no absence of a daemon, severs this workload, and nothing in it is held: it holds who is
        protected."""
        core = self._core
        why = self._why(w.cgroup)
        try:
            core.plane.shield(w.id, bool(why))
            core.apply_absence(w.id, () if why else w.policies)
        except Gone:
            return
        if why and w.id not in self._told:
            self._told.add(w.id)
            log.warning(
                "never contained as a whole %s", fields(workload=w.name, cgroup=w.cgroup, why=f"it holds {why}")
            )
        elif not why:
            self._told.discard(w.id)

    def refused(self, w: Workload) -> None:
        """Rules asked for what must not be done to it: it is as it was, and counts nothing."""
        core = self._core
        if core.engine and w.id in core.workloads:
            core.engine.workloads.adopt(w.id, w.desired)
        core.spending.budget.refund(w.cgroup)

    def _why(self, cgroup: str) -> str:
        for own in self._core.guard.cgroups:
            if contains(cgroup, own) or contains(own, cgroup):
                return f"{own}, which is protected by configuration"
        return next((f"process {k.pid} ({k.why})" for k, where in self._places if contains(cgroup, where)), "")

    def root_of(self, cgroup: str) -> str | None:
        """The workload that this cgroup is or belongs to, None if no policy watches it: the outermost that one watches, unless it
        is so wide that a protected process or cgroup lies somewhere below it. Then its children are workloads of their own, so
        that the others among them can be contained."""
        core = self._core
        if core.compiled is None:
            return None
        for path in core.compiled.roots_of(cgroup):
            if core.workloads.at(path) or not self._wide(path):
                return path
        return None

    def _wide(self, cgroup: str) -> bool:
        below = [where for _, where in self._places] + list(self._core.guard.cgroups)
        return any(where != cgroup and contains(cgroup, where) for where in below)
