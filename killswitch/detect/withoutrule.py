"""Findings that need no rule, made of the events that call for them: losses, floods, absences, escapes from a cgroup, and what
could not be judged to the end. What is answered to them is not decided here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from killswitch.commands import FREE, Finding, Mode, Response
from killswitch.detect.builtin import (
    CONTINUATION,
    EVENTS_LOST,
    FLOOD,
    FLOODED,
    LEFT_CGROUP,
    MOVED_OUT,
    REPEATED,
    UNATTENDED,
    UNDECIDED,
    built_in,
)
from killswitch.detect.continuation import Mark
from killswitch.detect.judge import Judge
from killswitch.detect.processes import Process
from killswitch.detect.summary import printable, summarise
from killswitch.detect.workload import Workload
from killswitch.events import CgroupMove, Exec, Lost, Unattended
from killswitch.policy.compiled import CompiledRule


@dataclass(frozen=True, slots=True)
class Losses:
    """Events that were lost for one reason, as one finding. ``key``: what it is folded with."""

    finding: Finding
    key: str


def lost(judge: Judge, workload: Workload | None, event: Lost) -> Losses | None:
    """``workload``: None where it is not known whose they were. None for what is counted, and was not missed."""
    if event.reason in REPEATED:
        return None
    mode = Mode.MONITOR if workload is None else judge.mode(workload)
    what, responses = EVENTS_LOST, tuple[Response, ...]()
    if workload is not None and event.reason in FLOODED:
        what, responses = FLOOD, judge.on_flood(workload)
    finding = built_in(what, event, summarise(event, None), mode=mode, responses=responses)
    return Losses(finding, f"{what.rule}: {event.reason}")


def unattended(event: Unattended) -> Finding:
    """What the kernel did while no daemon was there stays so where the policies keep it."""
    done = (Response.SEVER,)
    responses = done if event.keep else ()
    return built_in(UNATTENDED, event, summarise(event, None), mode=Mode.ENFORCE, responses=responses, done=done)


def moved_out(judge: Judge, workload: Workload, event: CgroupMove, process: Process | None) -> Finding:
    """Containment is an order, not a rule: that it is kept does not hang on the mode of the policies."""
    escaped = workload.containment != FREE
    mode = Mode.ENFORCE if escaped else judge.mode(workload)
    responses = (Response.KILL_PROCESS,) if escaped else ()
    # An operator may move what is free. Pid 1 may have been asked to by the workload, so it is no operator.
    what = MOVED_OUT if event.moved_by > 1 and not escaped else LEFT_CGROUP
    return built_in(what, event, summarise(event, process), mode=mode, responses=responses)


def undecided(judge: Judge, workload: Workload, event: Exec, told: str, rules: Sequence[CompiledRule]) -> Finding:
    """These rules might match by what of the command line could not be read. ``told``: the event, for people."""
    names = ", ".join(f"{r.policy.name}/{r.rule.id}" for r in rules[:5])
    told = f"{told}: what lies beyond the first {len(event.argv)} bytes might match {names}"
    return built_in(UNDECIDED, event, told, mode=judge.mode(workload))


def continued(judge: Judge, workload: Workload, event: Exec, process: Process | None, mark: Mark) -> Finding:
    """The program is that of another workload's incident, by its content."""
    told = f"{summarise(event, process)}: the program of {mark.incident}, there called {printable(mark.path)} and found by "
    told += f"{mark.rule} (sha256 {mark.sha256})"
    finding = built_in(CONTINUATION, event, told, mode=judge.mode(workload), responses=mark.responses)
    return replace(finding, level=mark.level)
