"""What is judged over a while, and not by one event of the kernel's: CPU load, window by window, and what went over connections.

Each has rules put to it and yields ``Case``: rules that have matched. What is answered to them is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from killswitch.detect.judge import Judge
from killswitch.detect.load import LoadTable, asks_of_whole
from killswitch.detect.pipeline import PIPED, TURNS, fed, turns
from killswitch.detect.pool import Pool
from killswitch.detect.processes import Process
from killswitch.detect.relay import RELAY, find
from killswitch.detect.summary import lineage
from killswitch.detect.workload import RuleKey, Workload
from killswitch.events import Cpu, Flow
from killswitch.facts import Pipes
from killswitch.policy.compiled import CompiledRule
from killswitch.policy.fields import Judged


@dataclass(frozen=True, slots=True)
class Case:
    """Rules (one or more) that have matched one event of a workload: what one answer is to be given to."""

    event: Judged
    process: Process | None
    rules: Sequence[CompiledRule]
    held_ns: Mapping[RuleKey, int] = field(default_factory=dict)  # how long a ``for:`` rule has held
    reasons: str = ""  # for people


def load_of_process(judge: Judge, loads: LoadTable, workload: Workload, event: Cpu) -> Iterator[Case]:
    """What one process did in one window, and the windows before."""
    if Cpu not in judge.judges:
        return
    process = workload.processes.get(event.pid, event.start_ticks)
    more = {**judge.held_outside(workload, event), **loads.fields(event)}
    yield from _load(judge, workload, event, process, more)


def load_of_whole(judge: Judge, workload: Workload, pool: Pool, now: int) -> Iterator[Case]:
    """What all processes of the workload did together since the last time: to be asked once a window."""
    window = pool.close_window(now)
    if not window or Cpu not in judge.judges:
        return
    event = Cpu(now, workload.id, 0, 0, window, pool.cores, pool.kernel_share, ())
    more = {**judge.held_outside(workload, event), **pool.fields(now)}
    yield from _load(judge, workload, event, None, more)


def _load(
    judge: Judge, workload: Workload, event: Cpu, process: Process | None, more: Mapping[str, object]
) -> Iterator[Case]:
    """Rules on ``cpu``: of one process, or (``pid`` 0) those that ask only about the workload as a whole."""
    matches = judge.matches(workload, event, process, more)
    rules = {(r.policy.name, r.rule.id): r for r in matches if asks_of_whole(r) is (event.pid == 0)}
    holding = [(key, r.rule.for_ns) for key, r in rules.items()]
    due = dict(workload.sustained((event.pid, event.start_ticks), holding, event.time_ns, event.window_ns))
    if due:  # what ran is judged, and not kept
        yield Case(replace(event, code=()), process, [rules[key] for key in due], due)


def flow_of(judge: Judge, workload: Workload, event: Flow) -> Iterator[Case]:
    """What went over one connection: of who made it, and first of who runs on it, who is of interest as well and may be gone
    already."""
    more = judge.of_flow(workload, event)
    event = replace(event, bursts=())
    asked = [replace(event, stdio=())]
    if event.stdio:
        asked.insert(0, replace(event, pid=event.holder_pid, start_ticks=event.holder_start_ticks))
    for one in asked:
        process = workload.processes.get(one.pid, one.start_ticks)
        rules = judge.matches(workload, one, process, more)
        if rules:
            yield Case(one, process, rules)


def relays(judge: Judge, workload: Workload, now: int) -> Iterator[Case]:
    """What went over the workload's connections since the last time, where it has the shape of a relay."""
    moved = workload.traffic.take_moved()
    if not moved or not judge.relaying:
        return
    for relay in find(workload.traffic, moved):
        event = replace(relay.outer, time_ns=now, bursts=())
        process = workload.processes.get(event.pid, event.start_ticks)
        more = {**judge.held_outside(workload, event), **relay.fields}
        rules = [r for r in judge.matches(workload, event, process, more) if r.fields.intersection(RELAY)]
        if rules:
            yield Case(event, process, rules, reasons=relay.reasons)


def piped(judge: Judge, workload: Workload, event: Pipes) -> Iterator[Case]:
    """The processes that a connection feeds through pipes, each as if it held the connection itself."""
    connection = workload.traffic.connections.get(event.cookie)
    if connection is None:
        return
    flow = replace(connection.flow, bursts=(), stdio=())
    others = [
        c
        for c in workload.traffic.connections.values()
        if c.flow.remote_ip == flow.remote_ip and c.flow.pid != flow.pid
    ]
    talk = turns(connection, others) >= TURNS
    more = {**judge.of_flow(workload, flow), PIPED: True}
    feeder = workload.processes.get(flow.pid, flow.start_ticks)
    takers = {c.flow.pid for c in others}
    for ends, comes_back in fed((flow.pid, flow.start_ticks), takers, event.processes, workload.processes.beside):
        if not (comes_back or talk):  # a script that is fetched, and its log that is handed in
            continue
        process = workload.processes.get(ends.pid, ends.start_ticks)
        one = replace(flow, pid=ends.pid, start_ticks=ends.start_ticks)
        rules = [r for r in judge.matches(workload, one, process, more) if PIPED in r.fields]
        if rules:
            yield Case(one, process, rules, reasons=f"fed through pipes by {lineage(feeder, flow.pid, name=flow.comm)}")
