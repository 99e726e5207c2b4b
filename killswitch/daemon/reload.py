"""The policies in force, and how others come into force: all of them, or none."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from killswitch.control.service import PolicyInfo
from killswitch.daemon import policyset
from killswitch.daemon.core import Core
from killswitch.daemon.log import fields
from killswitch.daemon.reactor import Reactor
from killswitch.daemon.survey import survey
from killswitch.engine import Engine
from killswitch.errors import KillswitchError
from killswitch.events import WorkloadAdded
from killswitch.policy.compiled import Compiled

log = logging.getLogger("killswitch.policy")


class Policies:
    def __init__(self, core: Core, reactor: Reactor) -> None:
        self._core = core
        self._reactor = reactor

    def describe(self) -> tuple[PolicyInfo, ...]:
        return policyset.describe(self._core.compiled) if self._core.compiled else ()

    async def reload(self) -> None:
        """Read, check and compile all files, then switch kernel and engine over, and judge what runs already.

        Raises PolicyError (all problems of all files) or KernelError; then what was in force stays in force.
        """
        core = self._core
        async with core.steady:
            files = core.config.policy_files()
            try:
                compiled = await asyncio.to_thread(policyset.compile_files, files, core.plane.policy_generation + 1)
                self.put_in_force(compiled, files)
            except KillswitchError as e:
                core.policy_problem = str(e)
                log.error("policies not reloaded, the old ones stay in force: %s", str(e).replace("\n", "; "))
                raise
            core.policy_problem = ""
            known = list(core.workloads)
            survey(core, self._reactor)  # begins to judge what runs in those that are watched from now on
            await self._reactor.judge_running(known)
            await self._reactor.caught_up(w.id for w in core.workloads)

    def put_in_force(self, compiled: Compiled, files: Sequence[Path], *, first_incident: int = 1) -> None:
        """Kernel first, engine next: an exec judged by the old tables meanwhile carries their generation and is judged
        again here. A workload is under the policies that it has before *and* after while the tables change, so that no
        rule ever hits a workload that is not its own."""
        core = self._core
        masks = {w.id: (w.mask, sum(1 << p for p in compiled.policies_for(w.cgroup))) for w in core.workloads}
        if core.compiled:  # what an index means is about to change, unless the policies stayed where they are
            same = [p.name for p in core.compiled.policies] == [p.name for p in compiled.policies]
            for number, (old, new) in masks.items():
                core.plane.set_policies(number, old & new if same else 0)
        try:
            core.plane.load_policy(compiled.tables, compiled.generation)
        except BaseException:
            for number, (old, _) in masks.items():
                core.plane.set_policies(number, old)
            raise
        core.compiled = compiled
        if core.engine is None:
            core.engine = Engine(compiled, first_incident=first_incident, budget=core.spending.budget)
        else:
            core.engine.reload(compiled)
        for w in core.workloads:
            w.policies = core.policies_for(w.cgroup)
            core.plane.set_policies(w.id, w.mask)
            core.guarding.shield(w)
            core.tell(WorkloadAdded(time.monotonic_ns(), w.id, w.name, w.cgroup, w.policies))
            core.records.workload(w)
        core.spending.policies_changed()
        self._reactor.files.apply()
        if why := core.deny_kills:
            log.warning("rules on exec with deny kill instead: no LSM program can refuse an exec here: %s", why)
        log.info(
            "policies in force %s",
            fields(
                policies=",".join(f"{p.name}:{p.version}:{p.mode}" for p in compiled.policies),
                rules=len(compiled.rules),
                states=len(compiled.tables.rows) // 512,
                generation=compiled.generation,
                files=",".join(map(str, files)),
            ),
        )
