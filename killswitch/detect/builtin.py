"""Findings that need no policy: what must never pass in silence, whatever the rules say."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.commands import Finding, Level, Mode, Response
from killswitch.events import CgroupMove, Denied, Exec, Lost, Unattended, Wire

POLICY = "built-in"

# What is counted with the losses though nothing was missed: the same process did the same to the same address again within a
# moment, and the first time was told.
REPEATED = frozenset({"sendmsg_suppressed"})
# These of a workload's events were kept out so that others' are not lost: see bpf/flood.h.
FLOODED = frozenset({"execs_flooded", "flows_flooded"})


@dataclass(frozen=True, slots=True)
class BuiltIn:
    rule: str
    title: str
    level: Level


LEFT_CGROUP = BuiltIn("left-cgroup", "A process left the workload's cgroup", Level.HIGH)
MOVED_OUT = BuiltIn("moved-out", "A process was moved out of the workload by one outside it", Level.LOW)
EVENTS_LOST = BuiltIn("events-lost", "Events were lost before they could be judged", Level.MEDIUM)
EARLIER_POLICY = BuiltIn("earlier-policy", "The data plane acted by rules that are not loaded any more", Level.HIGH)
UNATTENDED = BuiltIn("unattended", "The kernel cut the workload off: the daemon was away for too long", Level.HIGH)
UNDECIDED = BuiltIn("undecided", "A command line is too long to be judged, and could not be read whole", Level.MEDIUM)
FLOOD = BuiltIn("flood", "A workload makes events faster than they are read", Level.HIGH)
CONTINUATION = BuiltIn("continuation", "The program of another workload's incident", Level.HIGH)
WITHHELD = BuiltIn("kill-withheld", "The budget of automatic kills is used up: rules only monitor", Level.CRITICAL)
BUILT_INS = (LEFT_CGROUP, EVENTS_LOST, EARLIER_POLICY, UNDECIDED, FLOOD)


def built_in(
    what: BuiltIn,
    event: CgroupMove | Lost | Unattended | Exec | Wire | Denied,
    summary: str,
    *,
    mode: Mode,
    responses: tuple[Response, ...] = (),
    done: tuple[Response, ...] = (),
) -> Finding:
    """The finding of one of these. ``responses`` are besides the alert."""
    pid, start_ticks = (0, 0) if isinstance(event, Lost | Unattended) else (event.pid, event.start_ticks)
    return Finding(
        event.time_ns,
        event.workload,
        POLICY,
        what.rule,
        what.title,
        what.level,
        mode,
        (Response.ALERT, *responses),
        done,
        pid,
        start_ticks,
        summary,
        event,
        event.verdict_ns if done and isinstance(event, Exec) else 0,
    )
