"""The judge: events in, commands out. No clock, no system call, no lock; a test is a script of events.

Every match of a rule is a finding. Findings come out first (``RecordFinding``), then what is to be done about them. In
monitor mode only the finding comes out. What is shown is folded when it repeats (``detect.folding``); what is done is not:
every process that a ``kill_process`` rule hits is killed, and containment is asked for whenever a finding asks for more
than was asked for before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from killswitch.commands import Command, Finding, ReadCode, ReadPipes, RecordFinding
from killswitch.detect.answer import Answer, finding_of
from killswitch.detect.budget import Budget
from killswitch.detect.continuation import Mark
from killswitch.detect.fields import program_of
from killswitch.detect.folding import Folder
from killswitch.detect.inwards import tried
from killswitch.detect.judge import NOTHING, Judge
from killswitch.detect.load import HASHING, LoadTable
from killswitch.detect.processes import Process
from killswitch.detect.reach import port_of
from killswitch.detect.summary import summarise
from killswitch.detect.sustained import MAX_DIP_NS
from killswitch.detect.traffic import stays_here
from killswitch.detect.windows import Case, flow_of, load_of_process, load_of_whole, piped, relays
from killswitch.detect.withoutrule import continued, lost, moved_out, unattended, undecided
from killswitch.detect.workload import Workload
from killswitch.detect.workloads import Workloads
from killswitch.events import (
    Answered,
    CgroupMove,
    Connect,
    Cpu,
    Denied,
    Event,
    Exec,
    Exit,
    File,
    Flow,
    Fork,
    Listen,
    Lost,
    Released,
    Signal,
    Tick,
    Transport,
    Unanswered,
    Unattended,
    Wire,
    WorkloadAdded,
    WorkloadRemoved,
)
from killswitch.facts import Inspected, Pipes
from killswitch.machinecode import Code
from killswitch.policy.compiled import Compiled, CompiledRule
from killswitch.policy.fields import PROGRAM, Judged

PRUNE_EVERY_NS = 30_000_000_000


class Engine:
    def __init__(self, compiled: Compiled, *, first_incident: int = 1, budget: Budget | None = None) -> None:
        self.workloads = Workloads(first_incident)
        self.budget = budget or Budget()
        self._nobody = Folder()  # for findings about no workload that we know
        self._loads = LoadTable()
        self._pruned_ns = 0
        self.unclaimed = 0  # events of workloads that nobody has told us of
        self._judge = Judge(compiled)
        self._of_workload: dict[type, Callable[[Workload, Any], list[Command]]] = {
            Exec: self._exec,
            Fork: self._fork,
            Exit: self._exit,
            Connect: self._connect,
            Unanswered: self._unanswered,
            Answered: self._came_back,
            Listen: self._listen,
            Wire: self._wire,
            File: self._file,
            Signal: self._signal,
            Denied: self._denied,
            Flow: self._flow,
            CgroupMove: self._cgroup_move,
            Cpu: self._cpu,
        }
        self._others: dict[type, Callable[[Any], list[Command]]] = {
            Code: self._code,
            Lost: self._lost,
            Unattended: self._unattended,
            Tick: self._tick,
            WorkloadAdded: self._added,
            WorkloadRemoved: self._removed,
            Released: self._released,
        }

    def handle(self, event: Event) -> list[Command]:
        """What is to be done about ``event``, in this order: findings, kills, containment, code to read. Never blocks.

        An ``Exec`` whose arguments were cut, where that matters (``Compiled.wants_full_argv``), is to be handed in with
        the whole of them. When it comes truncated all the same, what could not be judged is itself a finding.
        """
        judge = self._of_workload.get(type(event))
        if judge is None:
            other = self._others.get(type(event))
            return other(event) if other is not None else []
        workload = self.workloads.get(getattr(event, "workload", 0))
        if workload is None:
            self.unclaimed += 1
            return []
        return judge(workload, event)

    # --- what the daemon tells and asks ------------------------------------------------------------------------------

    def reload(self, compiled: Compiled) -> None:
        """Judge by other policies from now on; what is known of processes, loads and incidents stays.

        A workload keeps its policies by name where it was given them by hand, and gets those whose globs fit its cgroup
        otherwise; a ``WorkloadAdded`` for it says otherwise.
        """
        old, self._judge = self._judge, Judge(compiled)
        for workload in self.workloads:
            workload.policies = self._judge.carried_over(workload.policies, workload.cgroup, old)
            self._judge.correlator.take_over(workload.shown)

    def hashing(self, workload: int, now_ns: int) -> float | None:
        """How much like hashing the CPU time of its last half minute was, 0..1; None = nothing ran that was looked at."""
        pool = self._loads.pools().get(workload)
        return pool.tally.score(now_ns) if pool is not None else None

    def recall(self, workload: int, findings: Iterable[Finding]) -> None:
        """Tell what an earlier daemon found in the open incident of a known workload, oldest first: it adds up with what is
        found from now on. The findings are of this boot, so that their times mean something."""
        self._judge.correlator.recall(self.workloads[workload].shown, findings)

    def survey(self, event: Exec | Inspected, found: Iterable[Finding] = ()) -> list[Command]:
        """Judge a program that runs already, as if it began now. What is known of its process and of its load stays.
        Of one that was ``Inspected``, only what has been found out about it.

        ``found``: what was found of the workload before. No rule finds the same process a second time, unless it (its
        mode, what it does) has changed since.
        """
        workload = self.workloads.get(event.workload)
        if workload is None:
            return []
        began = event.exec if isinstance(event, Inspected) else event
        process = workload.processes.get(began.pid, began.start_ticks)
        if isinstance(event, Inspected):
            matches = self._judge.later(workload, event, process)
        else:
            if process is None or not process.name:
                process = workload.processes.exec(event)
            matches = self._judge.matches(workload, event, process)
        rules = _new(matches, began, found)
        return self._act(workload, Case(began, process, rules)).commands() if rules else []

    def continued(self, event: Exec, mark: Mark) -> list[Command]:
        """A program that runs since ``event`` is that of another workload's incident, by its content."""
        workload = self.workloads.get(event.workload)
        if workload is None:
            return []
        process = workload.processes.get(event.pid, event.start_ticks)
        answer = self._answer(workload, event)
        answer.add(continued(self._judge, workload, event, process, mark))
        return answer.commands()

    # --- processes ---------------------------------------------------------------------------------------------------

    def _exec(self, workload: Workload, event: Exec) -> list[Command]:
        process = workload.processes.exec(event)
        self._loads.exec(event.pid, event.start_ticks)
        if self._judge.obeying:
            workload.runs.note(event.time_ns, process, workload.processes)
        rules = self._judge.matches(workload, event, process)
        might_match: list[CompiledRule] = []
        if event.argv_total > len(event.argv):
            might_match = [r for r in self._judge.compiled.undecided(event, workload.policies) if r not in rules]
        if not rules and not might_match and not event.done:
            return []
        answer = self._act(workload, Case(event, process, rules))
        told = summarise(event, process)
        if might_match:
            open_question = undecided(self._judge, workload, event, told, might_match)
            answer.add(open_question)
            told = open_question.summary
        return answer.unaccounted(event, rules, told).commands()

    def _fork(self, workload: Workload, event: Fork) -> list[Command]:
        process = workload.processes.fork(event)
        return self._by_rules(workload, event, process) if type(event) in self._judge.judges else []

    def _exit(self, workload: Workload, event: Exit) -> list[Command]:
        process = workload.processes.remove(event.pid, event.start_ticks)
        self._loads.forget(event.pid, event.start_ticks)
        workload.forget(event.pid, event.start_ticks)
        return self._by_rules(workload, event, process) if type(event) in self._judge.judges else []

    def _cgroup_move(self, workload: Workload, event: CgroupMove) -> list[Command]:
        process = workload.processes.get(event.pid, event.start_ticks)
        rules = self._judge.matches(workload, event, process)
        if event.to_workload == event.workload:  # inside the workload, or into it
            return self._act(workload, Case(event, process, rules)).commands() if rules else []
        workload.processes.remove(event.pid, event.start_ticks)
        workload.forget(event.pid, event.start_ticks)
        to = self.workloads.get(event.to_workload)
        if to is not None and process is not None:
            to.processes.put(process)
        answer = self._act(workload, Case(event, process, rules))
        answer.add(moved_out(self._judge, workload, event, process))
        return answer.commands()

    # --- everything that rules judge ---------------------------------------------------------------------------------

    def _connect(self, workload: Workload, event: Connect) -> list[Command]:
        if type(event) not in self._judge.judges and not self._judge.reaching:
            return []
        process = workload.processes.get(event.pid, event.start_ticks)
        more = tried(workload, process, event, reaching=self._judge.reaching)
        if self._judge.reaching:
            workload.datagrams.sent(event)
        return self._by_rules(workload, event, process, more)

    def _unanswered(self, workload: Workload, event: Unanswered) -> list[Command]:
        more: Mapping[str, object] = NOTHING
        if self._judge.reaching:  # also when only rules on connect ask for it
            note = workload.reach.silent if event.transport is Transport.UDP else workload.reach.unanswered
            more = note(event.time_ns, event.destination_ip, port_of(event))
        return self._by_rules(workload, event, workload.processes.last(event.pid), more)

    def _came_back(self, workload: Workload, event: Answered) -> list[Command]:
        workload.datagrams.answered(event.destination_ip, event.destination_port)
        workload.reach.came_back(event.destination_ip, event.destination_port)
        return []

    def _listen(self, workload: Workload, event: Listen) -> list[Command]:
        process = workload.processes.get(event.pid, event.start_ticks)
        if process is not None and event.operation == "listen":
            process.listens = True
        return self._by_rules(workload, event, process)

    def _wire(self, workload: Workload, event: Wire) -> list[Command]:
        process = workload.processes.get(event.pid, event.start_ticks)
        more: Mapping[str, object] = NOTHING
        if process is not None and process.executable and not event.maker_known:
            more = {PROGRAM: program_of(process, event)}
        rules = self._judge.matches(workload, event, process, more)
        if not rules and not event.done:
            return []
        answer = self._act(workload, Case(event, process, rules))
        return answer.unaccounted(event, rules, summarise(event, process)).commands()

    def _signal(self, workload: Workload, event: Signal) -> list[Command]:
        return self._by_rules(workload, event, workload.processes.get(event.pid, event.start_ticks))

    def _denied(self, workload: Workload, event: Denied) -> list[Command]:
        process = workload.processes.get(event.pid, event.start_ticks)
        if event.clause < 0:
            return self._by_rules(workload, event, process)
        rules = self._judge.matches(workload, event, process)
        by = self._judge.denied_by(event)
        rules = (by, *rules) if by is not None else rules
        answer = self._act(workload, Case(event, process, rules))
        return answer.unaccounted(event, rules if by is not None else (), summarise(event, process)).commands()

    def _file(self, workload: Workload, event: File) -> list[Command]:
        process = workload.processes.last(event.pid)
        if process is not None and event.start_ticks not in (0, process.start_ticks):
            process = None
        rules = self._judge.matches(workload, event, process)
        return self._act(workload, Case(replace(event, content=b""), process, rules)).commands() if rules else []

    def _flow(self, workload: Workload, event: Flow) -> list[Command]:
        workload.traffic.feed(event)
        if self._judge.reaching and workload.datagrams.flow(event):
            workload.reach.came_back(event.remote_ip, event.remote_port)
        if Flow not in self._judge.judges:
            return []
        out = self._answered(workload, flow_of(self._judge, workload, event))
        if self._judge.piping and not stays_here(event) and workload.pipe_looks.due(event):
            out.append(ReadPipes(workload.id, event.pid, event.start_ticks, event.cookie))
        return out

    def piped(self, event: Pipes) -> list[Command]:
        """Judge the processes that a connection feeds through pipes, as if they held it themselves."""
        workload = self.workloads.get(event.workload)
        return self._answered(workload, piped(self._judge, workload, event)) if workload is not None else []

    def _by_rules(
        self, workload: Workload, event: Judged, process: Process | None, more: Mapping[str, object] = NOTHING
    ) -> list[Command]:
        """What is to be done about an event that only rules have something to say about."""
        rules = self._judge.matches(workload, event, process, more)
        return self._act(workload, Case(event, process, rules)).commands() if rules else []

    def _cpu(self, workload: Workload, event: Cpu) -> list[Command]:
        request = self._loads.cpu(event, wanted=bool(self._judge.hashing & workload.policies))
        out = self._answered(workload, load_of_process(self._judge, self._loads, workload, event))
        if request:
            asked = ReadCode(workload.id, event.pid, event.start_ticks, request.hot, request.code, request.data)
            out.append(asked)
        return out

    def _whole_workloads(self, now: int) -> list[Command]:
        """Once a window: what all processes of each workload did in it, together."""
        out: list[Command] = []
        for number, pool in self._loads.pools().items():
            workload = self.workloads.get(number)
            if workload is not None:
                out += self._answered(workload, load_of_whole(self._judge, workload, pool, now))
        return out

    def _answered(self, workload: Workload, cases: Iterable[Case]) -> list[Command]:
        out: list[Command] = []
        for case in cases:
            out += self._act(workload, case).commands()
        return out

    def _code(self, event: Code) -> list[Command]:
        self._loads.code(event)
        return []

    def _act(self, workload: Workload, case: Case) -> Answer:
        """Findings for the rules that have matched, and one answer to all of them."""
        event, process, reasons = case.event, case.process, case.reasons
        pid, start = event.pid, event.start_ticks
        answer = self._answer(workload, event)
        for match in case.rules:
            hashes = type(event) is Cpu and not HASHING.isdisjoint(match.fields)
            if hashes:
                reasons = self._loads.reasons(event.workload, pid, start, event.time_ns)
            held = case.held_ns.get((match.policy.name, match.rule.id), 0)
            finding = finding_of(match, event, summarise(event, process, reasons=reasons, held_ns=held))
            # One place's changes do not hide another's.
            key = f"{match.rule.id}: {event.place}" if type(event) is File else ""
            answer.add(finding, key=key, hot=self._loads.hot(pid, start) if hashes else ())
        return answer

    def _answer(self, workload: Workload, event: Event) -> Answer:
        incident = self.workloads.open_incident(workload.id)
        return Answer(workload, incident, event, self._judge.correlator, self.budget, len(self.workloads))

    # --- findings that need no rule ----------------------------------------------------------------------------------

    def _lost(self, event: Lost) -> list[Command]:
        workload = self.workloads.get(event.workload)
        losses = lost(self._judge, workload, event)
        if losses is None:
            return []
        if workload is not None:
            answer = self._answer(workload, event)
            answer.add(losses.finding, key=losses.key, weight=event.count)
            return answer.commands()
        shown = self._nobody.offer(losses.finding, key=losses.key, weight=event.count)
        return [RecordFinding("", shown)] if shown is not None else []

    def _unattended(self, event: Unattended) -> list[Command]:
        workload = self.workloads.get(event.workload)
        if workload is None:
            return []
        answer = self._answer(workload, event)
        answer.add(unattended(event))
        return answer.commands()

    # --- workloads and time ------------------------------------------------------------------------------------------

    def _added(self, event: WorkloadAdded) -> list[Command]:
        self.workloads.add(event)
        return []

    def _removed(self, event: WorkloadRemoved) -> list[Command]:
        workload = self.workloads.remove(event.workload)
        if workload is None:
            return []
        self._loads.forget_workload(event.workload)
        return self._flush(workload, event.time_ns, all_of_them=True)

    def _released(self, event: Released) -> list[Command]:
        workload = self.workloads.get(event.workload)
        if workload is None:
            return []
        out = self._flush(workload, event.time_ns, all_of_them=True)
        self._loads.forget_workload(event.workload)  # what was measured before must not find it again by itself
        workload.afresh(event.time_ns)
        return out

    def _tick(self, event: Tick) -> list[Command]:
        out = self._whole_workloads(event.time_ns)
        for workload in self.workloads:
            out += self._answered(workload, relays(self._judge, workload, event.time_ns))
            for silent in workload.datagrams.overdue(event.time_ns):
                out += self._unanswered(workload, silent)
            if workload.shown.again:
                out += self._again(workload, event)
            out += self._flush(workload, event.time_ns)
        out += [RecordFinding("", f) for f in self._nobody.flush(event.time_ns)]
        if event.time_ns - self._pruned_ns >= PRUNE_EVERY_NS:
            self._pruned_ns = event.time_ns
            self._loads.prune(event.time_ns)
            for workload in self.workloads:
                workload.prune(event.time_ns - 2 * MAX_DIP_NS)
        return out

    def _again(self, workload: Workload, event: Tick) -> list[Command]:
        """What was found before, judged by the ``on: finding`` rules of now."""
        found = self._judge.correlator.judge_again(workload.shown, workload.policies, event.time_ns)
        if not found:
            return []
        return self._answer(workload, event).sum_up(found).commands()

    @staticmethod
    def _flush(workload: Workload, now: int, *, all_of_them: bool = False) -> list[Command]:
        folded = workload.folder.flush(now, all_of_them=all_of_them)
        return [RecordFinding(workload.incident, finding) for finding in folded]


def _new(matches: Iterable[CompiledRule], event: Exec, found: Iterable[Finding]) -> list[CompiledRule]:
    """Without those that have found this process before, as they are now."""
    entity = event.pid, event.start_ticks
    before = {(f.policy, f.rule, f.mode, f.responses) for f in found if (f.pid, f.start_ticks) == entity}
    return [m for m in matches if (m.policy.name, m.rule.id, m.policy.mode, m.rule.response) not in before]
