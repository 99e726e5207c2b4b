"""The programs on the workloads' cgroups are where they were put: somebody may have detached them, or removed their pins."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from killswitch.commands import FREE
from killswitch.daemon.log import fields
from killswitch.daemon.workloads import Workload
from killswitch.errors import Gone, KernelError

if TYPE_CHECKING:
    from killswitch.daemon.core import Core

log = logging.getLogger("killswitch")


class Upkeep:
    """``look`` is called again and again: all that are contained are looked at each time, and of the others one in its turn."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._turn = 0

    def look(self) -> None:
        workloads = list(self._core.workloads)
        free = [w for w in workloads if w.desired == FREE]
        self._turn += 1
        if again := self._core.plane.keep_outside():
            log.error("programs at the root of the tree had been detached, and are attached again %s", ",".join(again))
        for w in [w for w in workloads if w.desired != FREE] + (free and [free[self._turn % len(free)]]):
            self._look_at(w)

    def _look_at(self, w: Workload) -> None:
        core = self._core
        try:
            again = core.plane.reattach(w.id, core.path_of(w.cgroup))
        except Gone:
            return  # found out elsewhere
        except KernelError as e:
            log.critical(
                "programs are off and cannot be attached %s", fields(workload=w.name, cgroup=w.cgroup, error=e)
            )
            core.fail("the next start loads the data plane anew and contains by the ledger")
            return
        if again:
            log.error(
                "programs or maps had been tampered with, and are attached again %s",
                fields(workload=w.name, cgroup=w.cgroup, desired=w.desired, put_back=",".join(again)),
            )
