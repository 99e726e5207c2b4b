"""Who is held for longer than its turn: programs whose judgement, or what is to be done about them, takes time.

The pump says of each batch of events that it is judged; whoever waited for that may send. So before it says so, each exec
of which that is not true has to be kept here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from killswitch.daemon.core import Core
from killswitch.errors import KernelError
from killswitch.events import Event, Exec

log = logging.getLogger("killswitch.hold")


class Holding:
    def __init__(self, core: Core) -> None:
        self._core = core

    def until(self, cause: Event | None, task: asyncio.Task[Any]) -> None:
        """The program of this exec is held until the task has ended."""
        if not isinstance(cause, Exec) or not self._is_held(cause):
            return
        holds = self._core.plane.holds
        try:
            holds.keep(cause)
        except KernelError as e:
            self._not_kept(cause, e)
        else:
            task.add_done_callback(lambda _: self._settled(cause))

    def _settled(self, cause: Exec) -> None:
        self._core.plane.holds.settle(cause)
        self._core.delays.late.add(time.monotonic_ns() - cause.time_ns)

    def for_ever(self, cause: Event | None, pid: int) -> None:
        """The program of this exec is to be killed: what it has sent so far never leaves."""
        if not isinstance(cause, Exec) or cause.pid != pid or not self._is_held(cause):
            return
        try:
            self._core.plane.holds.condemn(cause)
        except KernelError as e:
            self._not_kept(cause, e)

    def _is_held(self, cause: Exec) -> bool:
        w = self._core.workloads.get(cause.workload)
        return w is not None and bool(self._core.absence_of(w.policies).holds)

    def _not_kept(self, cause: Exec, why: KernelError) -> None:
        log.error("process %d is no longer held, though it is not judged to the end: %s", cause.pid, why)
