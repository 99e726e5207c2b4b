"""Who is held for longer than its turn: programs whose judgement, or what is to be done about them, takes time.

The pump says of each batch of events that it is judged; whoever waited for that may send. So before it says so, each exec
of which that is not true has to be kept here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from killswitch.daemon.core import Core
from killswitch.daemon.workloads import Workload
from killswitch.errors import KernelError
from killswitch.events import Event, Exec

log = logging.getLogger("killswitch.hold")


ACTING_SECONDS = 10.0  # what is to be done about what was found


class Holding:
    """``survey``: judge what runs in a workload. ``caught_up``: wait until what takes time about these is judged."""

    def __init__(
        self,
        core: Core,
        survey: Callable[[Workload], Awaitable[None]],
        caught_up: Callable[[Iterable[int]], Awaitable[None]],
    ) -> None:
        self._core, self._survey, self._caught_up = core, survey, caught_up
        self._acting: set[asyncio.Task[Any]] = set()  # what is being done about findings
        self._judging_lost = False

    def act(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[Any]:
        """Do something about a finding."""
        task = self._core.spawn(work, what)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        return task

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

    # --- what nobody was told of ---

    async def judge_left(self) -> None:
        """What runs is judged: let go what an earlier daemon has left held, when what is to be done about it is done."""
        if self._core.plane.holds.left:
            await self._all_done(list(self._core.workloads))
            self._core.plane.holds.left_is_judged()

    def look(self) -> None:
        """Once a second: programs that the kernel had no room to tell of are held until what runs is judged."""
        if not self._judging_lost and self._core.plane.holds.untold():
            self._core.spawn(self._judge_lost(), "judge what runs: execs were lost")

    async def _judge_lost(self) -> None:
        self._judging_lost = True
        try:
            untold = self._core.plane.holds.untold()
            held = [w for w in self._core.workloads if self._core.absence_of(w.policies).holds]
            for w in held:
                await self._survey(w)
            await self._all_done(held)
            self._core.plane.holds.told(untold)
        finally:
            self._judging_lost = False

    async def _all_done(self, workloads: Iterable[Workload]) -> None:
        await self._caught_up(w.id for w in workloads)
        if self._acting:
            await asyncio.wait(set(self._acting), timeout=ACTING_SECONDS)

    # --- the small things ---

    def _is_held(self, cause: Exec) -> bool:
        w = self._core.workloads.get(cause.workload)
        return w is not None and bool(self._core.absence_of(w.policies).holds)

    def _not_kept(self, cause: Exec, why: KernelError) -> None:
        log.error("process %d is no longer held, though it is not judged to the end: %s", cause.pid, why)
