"""Events in, through the engine, and its commands carried out. No event waits: what takes time is a task of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

from killswitch.commands import (
    Command,
    Contain,
    Finding,
    KillProcess,
    Level,
    Outcome,
    ReadCode,
    ReadPipes,
    Receipt,
    RecordFinding,
    Step,
)
from killswitch.control.service import StreamItem
from killswitch.daemon.continuing import Continuing
from killswitch.daemon.core import Core
from killswitch.daemon.files import Files
from killswitch.daemon.holding import Holding
from killswitch.daemon.inspection import running_file
from killswitch.daemon.log import fields
from killswitch.daemon.reading import Reading
from killswitch.daemon.survey import tell_program
from killswitch.daemon.workloads import Workload
from killswitch.detect.builtin import FLOODED, REPEATED
from killswitch.errors import Gone, KernelError, Protected
from killswitch.events import (
    CgroupCreated,
    CgroupMove,
    CgroupRemoved,
    Done,
    Event,
    Exec,
    File,
    Lost,
    Tick,
    Unattended,
    WorkloadAdded,
    WorkloadRemoved,
)
from killswitch.facts import Inspected
from killswitch.kernel.syscalls import Known
from killswitch.policy.compiled import Compiled

log = logging.getLogger("killswitch.reactor")

_LOUD = (Level.HIGH, Level.CRITICAL)
SURVEYED_AT_ONCE = 32  # running programs that are judged before others are served


class Reactor:
    def __init__(self, core: Core) -> None:
        self._core = core
        self.files = Files(core)
        self.continuing = core.continuing = Continuing(core, self.carry_out, self._judge_later)
        self._reading = Reading(core)
        self._holding = Holding(core, self._survey, self.caught_up)
        self._surveying = False
        self._surveyed: set[int] = set()  # workloads whose processes were judged when they were first watched
        self._late: defaultdict[int, set[asyncio.Task[Any]]] = defaultdict(set)  # workload -> what still judges it
        core.tell = self.handle  # type: ignore[method-assign]  # the one knot between state and reaction

    def handle(self, event: Event) -> None:
        """One event, from the data plane or of our own making."""
        core = self._core
        if core.canary and getattr(event, "workload", 0) == core.canary[0]:
            core.canary[1](event)  # the self-test judges it; it is no workload of the operators
            return
        if w := core.workloads.get(getattr(event, "workload", 0)):
            w.events += 1
        if core.streams and type(event) is not Tick:
            shown = replace(event, content=b"") if isinstance(event, File) else event
            core.streams.event(shown, core.workloads.name(getattr(event, "workload", 0)))
        if isinstance(event, Exec):
            self._exec(event)
            return
        if isinstance(event, WorkloadAdded):
            self.files.note(event)
        elif isinstance(event, CgroupMove):
            core.guarding.note(event)
        self._judge(event)
        if isinstance(event, CgroupCreated):
            self.discover(event.path)
        elif isinstance(event, WorkloadAdded):
            if self._surveying and w and w.id not in self._surveyed:
                self._surveyed.add(w.id)
                self._judge_later(w.id, self._survey(w), f"judge what runs in {w.name}")
        elif isinstance(event, WorkloadRemoved):
            self._surveyed.discard(event.workload)
        elif isinstance(event, CgroupRemoved):
            core.gone(event.cgroup_id)
        elif isinstance(event, Lost):
            self._count_lost(event)

    def _exec(self, event: Exec) -> None:
        """The program is held until this returns, or for longer where it says so: first what judges it, then the rest."""
        core = self._core
        core.guarding.note(event)
        if event.truncated and self._reading.claim_whole(event):
            work = self._judge_whole(event)
            self._judge_later(event.workload, work, f"read the command line of process {event.pid}", event)
        else:
            self._judge(event)
            core.places.arrived(event.workload)
            file = running_file(event.pid)
            self.continuing.ran(event, file)
            self._inspect(event, file)
        self.files.note(event)

    def _judge_later(
        self, workload: int, work: Coroutine[Any, Any, None], what: str, cause: Event | None = None
    ) -> None:
        task = self._core.spawn(work, what)
        self._holding.until(cause, task)
        self._late[workload].add(task)
        task.add_done_callback(lambda done: self._judged(workload, done))

    def _judged(self, workload: int, task: asyncio.Task[Any]) -> None:
        self._late[workload].discard(task)
        if not self._late[workload]:
            del self._late[workload]

    async def caught_up(self, workloads: Iterable[int]) -> None:
        """Wait until all that was handed in so far of these workloads is judged: some of it takes time."""
        if late := {task for number in workloads for task in self._late.get(number, ())}:
            await asyncio.wait(late)

    # --- what runs already ---

    async def judge_running(self, workloads: Iterable[Workload]) -> None:
        """Judge what runs in these workloads, and from now on what runs in one when it is first watched."""
        self._surveying = True
        for w in workloads:
            self._surveyed.add(w.id)
            await self._survey(w)

    async def _survey(self, w: Workload) -> None:
        core = self._core
        engine, compiled = core.engine, core.compiled
        if engine is None or compiled is None:
            return
        for number, event in enumerate(await self._reading.running(w, compiled), 1):
            tell_program(core, event)
            found = core.found_before(w)
            for command in engine.survey(event, found):
                self.carry_out(command, event)
            self._inspect(event, running_file(event.pid), found)
            if number % SURVEYED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def judge_left(self) -> None:
        """What runs is judged: let go what an earlier daemon has left held."""
        await self._holding.judge_left()

    # --- what has to be read ---

    def _inspect(self, event: Exec, file: Known | None, found: Sequence[Finding] = ()) -> None:
        """Find out what rules ask for and the event does not say; at once where nothing has to be read.

        ``file``: what the process runs now.
        """
        core = self._core
        w, compiled = core.workloads.get(event.workload), core.compiled
        if w is None or compiled is None or event.done & Done.KILLED:
            return
        wants = compiled.wants(w.mask)
        if not wants:
            return
        facts = self._reading.facts_at_once(event, file, compiled, wants)
        if facts is not None:
            self._judge_inspected(Inspected(event.workload, event, facts), found)
        elif self._reading.claim_facts(event):
            work = self._inspect_later(event, compiled, wants, found)
            self._judge_later(event.workload, work, f"inspect process {event.pid}", event)

    async def _inspect_later(
        self, event: Exec, compiled: Compiled, wants: frozenset[str], found: Sequence[Finding]
    ) -> None:
        facts = await self._reading.facts(event, compiled, wants)
        self._judge_inspected(Inspected(event.workload, event, facts), found)

    def _judge_inspected(self, event: Inspected, found: Sequence[Finding]) -> None:
        if self._core.engine is not None:
            for command in self._core.engine.survey(event, found):
                self.carry_out(command, event.exec)

    def _judge(self, event: Event) -> None:
        engine = self._core.engine
        if engine is None:
            return
        for command in engine.handle(event):
            self.carry_out(command, event)
        self._core.spending.spent()  # the kernel is to know what is left before it judges the next

    # --- commands ---

    def carry_out(self, command: Command, cause: Event | None = None) -> None:
        core = self._core
        if isinstance(command, RecordFinding):
            self._record(command)
            return
        w = core.workloads.get(command.workload)
        if w is None:
            log.warning("%s came to nothing: its workload is gone", type(command).__name__)
            return
        if isinstance(command, Contain):
            self._holding.until(cause, self._holding.act(self._contain(w, command), f"contain {w.name}"))
        elif isinstance(command, KillProcess):
            self._holding.for_ever(cause, command.pid)
            self._holding.act(core.kill_process(w, command), f"kill process {command.pid}")
        elif isinstance(command, ReadPipes):
            core.spawn(self._read_pipes(w, command), f"read the pipes around process {command.pid}")
        else:
            core.spawn(self._read_code(command), f"read the code of process {command.pid}")

    def _record(self, command: RecordFinding) -> None:
        core, finding = self._core, command.finding
        if not finding.verdict_ns:
            finding = replace(finding, verdict_ns=max(0, time.monotonic_ns() - finding.time_ns))
        w = core.workloads.get(finding.workload)
        if w and command.incident:
            incident = core.incident_of(w, f"{finding.policy}/{finding.rule}: {finding.summary}")
            incident.add(finding)
            self.continuing.found(finding)
        core.records.finding(finding, command.incident)
        name = w.name if w else ""
        core.streams.publish(
            StreamItem(finding=finding, incident=command.incident, workload_name=name), finding.workload
        )
        log.log(
            logging.WARNING if finding.level in _LOUD else logging.INFO,
            "finding %s",
            fields(
                rule=finding.rule,
                policy=finding.policy,
                level=finding.level,
                mode=finding.mode,
                workload=name,
                incident=command.incident,
                pid=finding.pid,
                done_in_kernel=",".join(finding.done_in_kernel),
                verdict_us=f"{finding.verdict_ns / 1e3:.1f}" if finding.verdict_ns else "",
                summary=finding.summary,
            ),
        )

    # --- what takes time ---

    async def _contain(self, w: Workload, command: Contain) -> None:
        core, started = self._core, time.monotonic_ns()
        try:
            await core.contain(w, command.desired, capture=command.capture, reason=command.reason, hot=command.hot)
        except Protected as e:  # a rule must not do what an operator may not; but it must not go unsaid either
            step = Step.SEVER if command.desired.severed else Step.FREEZE
            core.guarding.refused(w)
            refused = Receipt(step, Outcome.REFUSED, w.id, started, time.monotonic_ns(), {}, str(e))
            core.receipt(refused, w, core.incidents.get(command.incident))

    async def _judge_whole(self, event: Exec) -> None:
        """A command line longer than the kernel's window is judged in full: padding must hide nothing."""
        event = await self._reading.whole(event)
        self._judge(event)
        self._inspect(event, running_file(event.pid))

    async def _read_code(self, command: ReadCode) -> None:
        code = await self._reading.code(command)
        if code is not None:
            self.handle(code)

    async def _read_pipes(self, w: Workload, command: ReadPipes) -> None:
        pipes = await self._reading.pipes(w, command)
        if pipes is not None and self._core.engine is not None:
            for found in self._core.engine.piped(pipes):
                self.carry_out(found)

    # --- time ---

    def tick(self) -> None:
        """Once a second: time for the engine, what was lost, how CPUs were used."""
        core = self._core
        now = time.monotonic_ns()
        core.spending.sync()
        self.continuing.tick()
        for lost in core.plane.losses():
            self.handle(lost)
        self._holding.look()
        for flow in core.plane.traffic():  # before the CPU's windows, whose rules may ask for it
            self.handle(flow)
        self.look_after()
        for cpu in core.plane.cpu_window():
            self.handle(cpu)
        self.handle(Tick(now))

    def look_after(self) -> None:
        """Do what the policies say with each workload that the kernel has cut off by itself, because no daemon was there for
        too long. An order that stands goes before."""
        for w in self._core.workloads:
            if self._core.plane.unattended(w.id):
                self._attend(w)

    def _attend(self, w: Workload) -> None:
        core = self._core
        absence = core.absence_of(w.policies)
        self.handle(Unattended(time.monotonic_ns(), w.id, absence.grace_ms, absence.keep))
        core.attended(w, keep=absence.keep)
        log.warning(
            "severed by the kernel, no daemon was there %s",
            fields(workload=w.name, grace_ms=absence.grace_ms, kept=absence.keep),
        )

    def _count_lost(self, event: Lost) -> None:
        core = self._core
        if event.reason in REPEATED:
            core.repeated += event.count
            return
        core.lost[event.reason] += event.count
        w = core.workloads.get(event.workload)
        if w:
            w.lost += event.count
        if w and event.reason in FLOODED:
            core.tighten(w)
        log.warning(
            "events lost %s", fields(reason=event.reason, count=event.count, workload=w.name if w else event.workload)
        )

    # --- cgroups ---

    def discover(self, cgroup: str) -> None:
        """A cgroup is there: watch it when a policy says so, or when it was contained as it went away."""
        core = self._core
        if core.is_canary(cgroup):
            return
        wanted = core.guarding.root_of(cgroup)
        if wanted == cgroup or cgroup in core.workloads.absent:
            try:
                core.watch(cgroup)
            except Gone:
                pass  # removed again before we came to it
            except KernelError as e:
                log.error("not watched %s", fields(cgroup=cgroup, error=e))
