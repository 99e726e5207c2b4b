"""The policies in force, and how others come into force: all of them, or none."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from killswitch.control.service import PolicyInfo
from killswitch.daemon import policyset
from killswitch.daemon.compiling import Compiler
from killswitch.daemon.core import Core
from killswitch.daemon.log import fields
from killswitch.daemon.reactor import Reactor
from killswitch.daemon.survey import survey
from killswitch.engine import Engine
from killswitch.errors import KillswitchError, Problem
from killswitch.events import WorkloadAdded
from killswitch.policy.compiled import Compiled

log = logging.getLogger("killswitch.policy")


class Policies:
    def __init__(self, core: Core, reactor: Reactor) -> None:
        self._core = core
        self._reactor = reactor
        self._compiler = Compiler()

    def describe(self) -> tuple[PolicyInfo, ...]:
        return policyset.describe(self._core.compiled) if self._core.compiled else ()

    async def problems_of(self, text: str, file: str) -> tuple[Problem, ...]:
        """What is wrong with one policy; it is not put in force."""
        return await self._compiler.problems_of(text, file)

    async def reload(self) -> None:
        """Read, check and compile all files, then switch kernel and engine over, and judge what runs already.

        Raises PolicyError (all problems of all files) or another KillswitchError; then what was in force stays in force.
        """
        core = self._core
        async with core.steady:
            files = core.config.policy_files()
            try:
                compiled = await self._compiler.compile(files, core.plane.policy_generation + 1)
                await self._compiler.prepare(lambda: self._prepare(compiled))
                self.put_in_force(compiled, files, prepared=True)
            except KillswitchError as e:
                core.policy_problem = str(e)
                log.error("policies not reloaded, the old ones stay in force: %s", str(e).replace("\n", "; "))
                raise
            core.policy_problem = ""
            known = list(core.workloads)
            survey(core, self._reactor)  # begins to judge what runs in those that are watched from now on
            await self._reactor.judge_running(known)
            await self._reactor.caught_up(w.id for w in core.workloads)

    def _prepare(self, compiled: Compiled) -> None:
        """What takes time, in a thread: what is in force stays so. Raises KernelError."""
        self._core.plane.prepare_policy(compiled.tables, compiled.generation)
        compiled.plan(_mask(compiled.policies_for(w.cgroup)) for w in list(self._core.workloads))

    def put_in_force(
        self, compiled: Compiled, files: Sequence[Path], *, first_incident: int = 1, prepared: bool = False
    ) -> None:
        """Kernel first, engine next: an exec judged by the old tables meanwhile carries their generation and is judged
        again here. The kernel goes from old tables and policies to new ones at once, so that it judges all the time, and no
        rule ever hits a workload that is not its own. Raises KernelError, unless it is ``prepared``."""
        core = self._core
        if not prepared:
            core.plane.prepare_policy(compiled.tables, compiled.generation)
        core.plane.switch_policy({w.id: _mask(compiled.policies_for(w.cgroup)) for w in core.workloads})
        core.compiled = compiled
        if core.engine is None:
            core.engine = Engine(compiled, first_incident=first_incident, budget=core.spending.budget)
        else:
            core.engine.reload(compiled)
        for w in core.workloads:
            w.policies = core.policies_for(w.cgroup)
            core.guarding.shield(w)
            core.tell(WorkloadAdded(time.monotonic_ns(), w.id, w.name, w.cgroup, w.policies))
            core.records.workload(w)
        core.spending.policies_changed()
        self._reactor.files.apply()
        for warning in compiled.warnings:
            log.warning("policies: %s", warning)
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


def _mask(policies: Iterable[int]) -> int:
    return sum(1 << p for p in policies)
