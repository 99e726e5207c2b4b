"""The judge: events in, commands out. No clock, no system call, no lock; a test is a script of events.

Every match of a rule is a finding. Findings come out first (``RecordFinding``), then what is to be done about them. In
monitor mode only the finding comes out. What is shown is folded when it repeats (``detect.folding``); what is done is not:
every process that a ``kill_process`` rule hits is killed, and containment is asked for whenever a finding asks for more
than was asked for before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from killswitch.commands import FREE, Command, Containment, Finding, Mode, ReadCode, RecordFinding, Response
from killswitch.detect.answer import Answer, done_in_kernel
from killswitch.detect.builtin import EARLIER_POLICY, EVENTS_LOST, LEFT_CGROUP, UNDECIDED, built_in
from killswitch.detect.fields import extra_fields, program_of, wanted_fields
from killswitch.detect.folding import Folder
from killswitch.detect.load import LoadTable
from killswitch.detect.processes import Process
from killswitch.detect.reach import FANOUT
from killswitch.detect.summary import summarise
from killswitch.detect.sustained import MAX_DIP_NS
from killswitch.detect.workload import RuleKey, Workload
from killswitch.events import (
    CgroupMove,
    Code,
    Connect,
    Cpu,
    Event,
    Exec,
    Exit,
    Fork,
    Listen,
    Lost,
    Released,
    Tick,
    Wire,
    WorkloadAdded,
    WorkloadRemoved,
)
from killswitch.policy.compiled import Compiled, CompiledRule
from killswitch.policy.fields import PROGRAM

PRUNE_EVERY_NS = 30_000_000_000
NO_TIMES: Mapping[RuleKey, int] = MappingProxyType({})
NOTHING: Mapping[str, object] = MappingProxyType({})

Judged = Exec | Fork | Exit | Connect | Listen | Wire | CgroupMove | Cpu


class Engine:
    def __init__(self, compiled: Compiled, *, first_incident: int = 1) -> None:
        self._next_incident = first_incident
        self._workloads: dict[int, Workload] = {}
        self._nobody = Folder()  # for findings about no workload that we know
        self._loads = LoadTable()
        self._pruned_ns = 0
        self.unclaimed = 0  # events of workloads that nobody has told us of
        self._handlers: dict[type, Callable[[Any], list[Command]]] = {
            Exec: self._exec,
            Fork: self._fork,
            Exit: self._exit,
            Connect: self._connect,
            Listen: self._listen,
            Wire: self._wire,
            CgroupMove: self._cgroup_move,
            Cpu: self._cpu,
            Code: self._code,
            Lost: self._lost,
            Tick: self._tick,
            WorkloadAdded: self._added,
            WorkloadRemoved: self._removed,
            Released: self._released,
        }
        self._take(compiled)

    def handle(self, event: Event) -> list[Command]:
        """What is to be done about ``event``, in this order: findings, kills, containment, code to read. Never blocks.

        An ``Exec`` whose arguments were cut, where that matters (``Compiled.wants_full_argv``), is to be handed in with
        the whole of them. When it comes truncated all the same, what could not be judged is itself a finding.
        """
        handler = self._handlers.get(type(event))
        return handler(event) if handler is not None else []

    # --- what the daemon tells and asks ------------------------------------------------------------------------------

    def reload(self, compiled: Compiled) -> None:
        """Judge by other policies from now on; what is known of processes, loads and incidents stays.

        A workload keeps its policies by name where it was given them by hand, and gets those whose globs fit its cgroup
        otherwise; a ``WorkloadAdded`` for it says otherwise.
        """
        old = self._compiled
        self._take(compiled)
        index = {policy.name: i for i, policy in enumerate(compiled.policies)}
        for workload in self._workloads.values():
            if workload.policies == _mask(old.policies_for(workload.cgroup)):
                workload.policies = _mask(compiled.policies_for(workload.cgroup))
            else:
                names = (p.name for i, p in enumerate(old.policies) if workload.policies >> i & 1)
                workload.policies = _mask(index[name] for name in names if name in index)

    def adopt(self, workload: int, containment: Containment, *, incident: str = "", captured: bool = False) -> None:
        """Tell how a known workload is contained by other hands: an operator's order, or what a restart has found.

        ``incident`` names its open incident. Nothing comes out; findings join that incident, and containment is asked for
        again only where a finding asks for more.
        """
        known = self._workloads[workload]
        known.containment = containment
        known.captured = known.captured or captured
        known.incident = incident or known.incident

    def open_incident(self, workload: int) -> str:
        """The open incident of a known workload; opened if there is none (an operator's order is one, too)."""
        known = self._workloads[workload]
        if not known.incident:
            known.incident = f"inc-{self._next_incident}"
            self._next_incident += 1
        return known.incident

    def survey(self, event: Exec, found: Iterable[Finding] = ()) -> list[Command]:
        """Judge a program that runs already, as if it began now. What is known of its process and of its load stays.

        ``found``: what was found of the workload before. No rule finds the same process a second time, unless it (its
        mode, what it does) has changed since.
        """
        workload = self._workloads.get(event.workload)
        if workload is None:
            return []
        process = workload.processes.get(event.pid, event.start_ticks)
        if process is None or not process.name:
            process = workload.processes.exec(event)
        entity = event.pid, event.start_ticks
        before = {(f.policy, f.rule, f.mode, f.responses) for f in found if (f.pid, f.start_ticks) == entity}
        matches = self._matches(workload, event, "exec", process)
        rules = [m for m in matches if (m.policy.name, m.rule.id, m.policy.mode, m.rule.response) not in before]
        return self._act(workload, event, process, rules).commands() if rules else []

    def asked_for(self, workload: int) -> dict[tuple[int, int], tuple[bytes, bytes]]:
        """Of each known process, by (pid, start ticks): its executable, and the path that was asked for (a script's)."""
        known = self._workloads.get(workload)
        return {(p.pid, p.start_ticks): (p.executable, p.filename) for p in known.processes} if known else {}

    def wants_hot(self, workload: int | None = None) -> bool:
        """Whether a loaded rule asks for ``cpu.hashing`` (in this workload): if not, no hot addresses are needed."""
        if workload is None:
            return bool(self._hashing)
        known = self._workloads.get(workload)
        return known is not None and bool(self._hashing & known.policies)

    def _take(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._rules_on = frozenset(r.rule.on for r in compiled.rules)
        self._wanted = wanted_fields(compiled.rules)
        self._reaching = any(r.fields.intersection(FANOUT) for r in compiled.rules)
        self._hashing = _mask(r.policy_index for r in compiled.rules if "cpu.hashing" in r.fields)
        self._enforcing = _mask(i for i, p in enumerate(compiled.policies) if p.mode is Mode.ENFORCE)

    # --- processes ---------------------------------------------------------------------------------------------------

    def _exec(self, event: Exec) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            self.unclaimed += 1
            return []
        process = workload.processes.exec(event)
        self._loads.exec(event.pid, event.start_ticks)
        rules = self._matches(workload, event, "exec", process)
        undecided: tuple[CompiledRule, ...] = ()
        if event.argv_total > len(event.argv):
            undecided = tuple(r for r in self._compiled.undecided(event, workload.policies) if r not in rules)
        if not rules and not undecided and not event.done:
            return []
        answer = self._act(workload, event, process, rules)
        told = summarise(event, process)
        if undecided:
            names = ", ".join(f"{r.policy.name}/{r.rule.id}" for r in undecided[:5])
            told = f"{told}: what lies beyond the first {len(event.argv)} bytes might match {names}"
            answer.add(built_in(UNDECIDED, event, told, mode=self._mode(workload)))
        if event.done and not any(r.policy.mode is Mode.ENFORCE for r in rules):
            # The data plane judged by the tables from before a reload, which no loaded rule stands for any more.
            done = tuple(sorted(done_in_kernel(event)))
            answer.add(built_in(EARLIER_POLICY, event, told, mode=Mode.ENFORCE, responses=done, done=done))
        return answer.commands()

    def _fork(self, event: Fork) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            self.unclaimed += 1
            return []
        process = workload.processes.fork(event)
        return self._judge(workload, event, "fork", process) if "fork" in self._rules_on else []

    def _exit(self, event: Exit) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            self.unclaimed += 1
            return []
        process = workload.processes.remove(event.pid, event.start_ticks)
        self._loads.forget(event.pid, event.start_ticks)
        workload.forget(event.pid, event.start_ticks)
        return self._judge(workload, event, "exit", process) if "exit" in self._rules_on else []

    def _cgroup_move(self, event: CgroupMove) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            self.unclaimed += 1
            return []
        process = workload.processes.get(event.pid, event.start_ticks)
        rules = self._matches(workload, event, "cgroup_move", process)
        if event.to_workload == event.workload:  # inside the workload, or into it
            return self._act(workload, event, process, rules).commands() if rules else []
        workload.processes.remove(event.pid, event.start_ticks)
        workload.forget(event.pid, event.start_ticks)
        to = self._workloads.get(event.to_workload)
        if to is not None and process is not None:
            to.processes.put(process)
        # Containment is an order, not a rule: that it is kept does not hang on the mode of the policies.
        escaped = workload.containment != FREE
        answer = self._act(workload, event, process, rules)
        mode = Mode.ENFORCE if escaped else self._mode(workload)
        responses = (Response.KILL_PROCESS,) if escaped else ()
        answer.add(built_in(LEFT_CGROUP, event, summarise(event, process), mode=mode, responses=responses))
        return answer.commands()

    # --- everything that rules judge ---------------------------------------------------------------------------------

    def _connect(self, event: Connect) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            self.unclaimed += 1
            return []
        if "connect" not in self._rules_on:
            return []
        more: Mapping[str, object] = NOTHING
        if self._reaching:
            reach = workload.reach.feed(event.time_ns, event.destination_ip, event.destination_port)
            more = dict(zip(FANOUT, reach, strict=True))
        return self._judge(workload, event, "connect", workload.processes.get(event.pid, event.start_ticks), more)

    def _listen(self, event: Listen) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            self.unclaimed += 1
            return []
        if "listen" not in self._rules_on:
            return []
        return self._judge(workload, event, "listen", workload.processes.get(event.pid, event.start_ticks))

    def _wire(self, event: Wire) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            self.unclaimed += 1
            return []
        process = workload.processes.get(event.pid, event.start_ticks)
        more: Mapping[str, object] = NOTHING
        if process is not None and process.executable and not event.maker_known:
            more = {PROGRAM: program_of(process, event)}
        rules = self._matches(workload, event, "wire", process, more)
        if not rules and not event.done:
            return []
        answer = self._act(workload, event, process, rules)
        if event.done and not any(r.policy.mode is Mode.ENFORCE for r in rules):
            done = tuple(sorted(done_in_kernel(event)))
            told = summarise(event, process)
            answer.add(built_in(EARLIER_POLICY, event, told, mode=Mode.ENFORCE, responses=done, done=done))
        return answer.commands()

    def _judge(
        self,
        workload: Workload,
        event: Judged,
        kind: str,
        process: Process | None,
        more: Mapping[str, object] = NOTHING,
    ) -> list[Command]:
        rules = self._matches(workload, event, kind, process, more)
        return self._act(workload, event, process, rules).commands() if rules else []

    def _matches(
        self,
        workload: Workload,
        event: Judged,
        kind: str,
        process: Process | None,
        more: Mapping[str, object] = NOTHING,
    ) -> tuple[CompiledRule, ...]:
        if kind not in self._rules_on:
            return ()
        wanted = self._wanted.get(kind)
        if wanted is not None:
            more = {**extra_fields(wanted, event, process, workload.cgroup), **more}
        return self._compiled.matches(event, workload.policies, more)

    def _cpu(self, event: Cpu) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            self.unclaimed += 1
            return []
        pid, start = event.pid, event.start_ticks
        out: list[Command] = []
        hot = self._loads.cpu(event, wanted=bool(self._hashing & workload.policies))
        if hot:
            out.append(ReadCode(workload.id, pid, start, hot))
        if "cpu" not in self._rules_on:
            return out
        process = workload.processes.get(pid, start)
        hashing = self._loads.hashing(event)
        more = NOTHING if hashing is None else {"cpu.hashing": hashing}
        rules = {(r.policy.name, r.rule.id): r for r in self._matches(workload, event, "cpu", process, more)}
        holding = [(key, r.rule.for_ns) for key, r in rules.items()]
        due = dict(workload.sustained((pid, start), holding, event.time_ns, event.window_ns))
        if due:
            return self._act(workload, event, process, [rules[key] for key in due], due).commands() + out
        return out

    def _code(self, event: Code) -> list[Command]:
        self._loads.code(event)
        return []

    def _act(
        self,
        workload: Workload,
        event: Judged,
        process: Process | None,
        rules: Sequence[CompiledRule],
        held_ns: Mapping[RuleKey, int] = NO_TIMES,
    ) -> Answer:
        """Findings for these rules, and one answer to all of them. ``held_ns``: how long a ``for:`` rule has held."""
        pid, start = event.pid, event.start_ticks
        done = done_in_kernel(event)
        answer = Answer(workload, self.open_incident(workload.id), event)
        for match in rules:
            rule, mode = match.rule, match.policy.mode
            hashes = type(event) is Cpu and "cpu.hashing" in match.fields
            reasons = self._loads.reasons(pid, start) if hashes else ""
            in_kernel = tuple(r for r in rule.response if r in done) if mode is Mode.ENFORCE else ()
            finding = Finding(
                event.time_ns,
                workload.id,
                match.policy.name,
                rule.id,
                rule.title,
                rule.level,
                mode,
                rule.response,
                in_kernel,
                pid,
                start,
                summarise(event, process, reasons=reasons, held_ns=held_ns.get((match.policy.name, rule.id), 0)),
                event,
                # Whoever acted on it has judged it: otherwise the verdict is ours, and the daemon puts in its time.
                event.verdict_ns if in_kernel and isinstance(event, Exec | Wire) else 0,
                rule.act,
                rule.evidence,
            )
            answer.add(finding, hot=self._loads.hot(pid, start) if hashes else ())
        return answer

    def _mode(self, workload: Workload) -> Mode:
        """Of a built-in finding: that of the strictest policy which watches the workload."""
        return Mode.ENFORCE if workload.policies & self._enforcing else Mode.MONITOR

    # --- findings that need no rule ----------------------------------------------------------------------------------

    def _lost(self, event: Lost) -> list[Command]:
        workload = self._workloads.get(event.workload)
        mode = Mode.MONITOR if workload is None else self._mode(workload)
        finding = built_in(EVENTS_LOST, event, summarise(event, None), mode=mode)
        key = f"{EVENTS_LOST.rule}: {event.reason}"
        if workload is not None:
            answer = Answer(workload, self.open_incident(workload.id), event)
            answer.add(finding, key=key, weight=event.count)
            return answer.commands()
        shown = self._nobody.offer(finding, key=key, weight=event.count)
        return [RecordFinding("", shown)] if shown is not None else []

    # --- workloads and time ------------------------------------------------------------------------------------------

    def _added(self, event: WorkloadAdded) -> list[Command]:
        known = self._workloads.get(event.workload)
        if known is None:
            known = self._workloads[event.workload] = Workload(event.workload, event.name, event.cgroup, 0)
        known.name, known.cgroup, known.policies = event.name, event.cgroup, _mask(event.policies)
        return []

    def _removed(self, event: WorkloadRemoved) -> list[Command]:
        workload = self._workloads.pop(event.workload, None)
        if workload is None:
            return []
        for process in workload.processes:
            self._loads.forget(process.pid, process.start_ticks)
        return self._flush(workload, event.time_ns, all_of_them=True)

    def _released(self, event: Released) -> list[Command]:
        workload = self._workloads.get(event.workload)
        if workload is None:
            return []
        out = self._flush(workload, event.time_ns, all_of_them=True)
        workload.afresh()
        return out

    def _tick(self, event: Tick) -> list[Command]:
        out: list[Command] = []
        for workload in self._workloads.values():
            out += self._flush(workload, event.time_ns)
        out += [RecordFinding("", f) for f in self._nobody.flush(event.time_ns)]
        if event.time_ns - self._pruned_ns >= PRUNE_EVERY_NS:
            self._pruned_ns = event.time_ns
            self._loads.prune(event.time_ns)
            for workload in self._workloads.values():
                workload.prune(event.time_ns - 2 * MAX_DIP_NS)
        return out

    @staticmethod
    def _flush(workload: Workload, now: int, *, all_of_them: bool = False) -> list[Command]:
        folded = workload.folder.flush(now, all_of_them=all_of_them)
        return [RecordFinding(workload.incident, finding) for finding in folded]


def _mask(bits: Iterable[int]) -> int:
    mask = 0
    for bit in bits:
        mask |= 1 << bit
    return mask
