"""From findings about one event to one answer: what is recorded, who is killed, how far the workload is contained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from killswitch.commands import (
    FREE,
    Command,
    Contain,
    Containment,
    Finding,
    KillProcess,
    Mode,
    RecordFinding,
    Response,
)
from killswitch.detect.budget import Budget
from killswitch.detect.builtin import EARLIER_POLICY, POLICY, WITHHELD, built_in
from killswitch.detect.correlate import Correlator
from killswitch.detect.workload import Workload
from killswitch.events import Connect, Denied, Done, Event, Exec, Listen, Unattended, Wire
from killswitch.policy.compiled import CompiledRule
from killswitch.policy.fields import Judged

_DONE = ((Done.KILLED, Response.KILL_PROCESS), (Done.SEVERED, Response.SEVER), (Done.DENIED, Response.DENY))
HITS = frozenset({Response.KILL_PROCESS, Response.SEVER})  # of what the data plane does, what the budget counts
Hot = tuple[tuple[int, int, int], ...]


class Answer:
    """All that is answered to one event of one workload: several rules may match it, the workload is contained once."""

    def __init__(
        self, workload: Workload, incident: str, event: Event, correlator: Correlator, budget: Budget, watched: int
    ) -> None:
        """``watched``: how many workloads are, of which ``budget`` allows some to be hit."""
        self._workload = workload
        self._correlator = correlator
        self._budget, self._watched = budget, watched
        self._event, self._now = event, event.time_ns
        self._found: list[Finding] = []
        self._incident = incident
        self._done = done_in_kernel(event)
        self._records: list[Command] = []
        self._process = (0, 0)
        self._kill = False
        self._capture = False
        self._desired = FREE
        self._reason = ""
        self._hot: Hot = ()

    def add(self, finding: Finding, *, hot: Hot = (), key: str = "", weight: int = 1) -> None:
        """One finding. It is shown unless it is folded; its responses count in any case, unless it only monitors."""
        self._found.append(finding)
        self._take(finding, hot=hot, key=key, weight=weight)

    def sum_up(self, findings: Iterable[Finding]) -> Answer:
        """Findings about what others add up to: they do not add up themselves."""
        for finding in findings:
            self._take(finding)
        return self

    def unaccounted(self, event: Exec | Wire | Denied, rules: Iterable[CompiledRule], told: str) -> Answer:
        """Say so when the data plane has acted by the tables from before a reload, which none of the rules that match now
        stands for."""
        if self._done and not any(rule.policy.mode is Mode.ENFORCE for rule in rules):
            done = tuple(sorted(self._done))
            self.add(built_in(EARLIER_POLICY, event, told, mode=Mode.ENFORCE, responses=done, done=done))
        return self

    def _take(self, finding: Finding, *, hot: Hot = (), key: str = "", weight: int = 1) -> None:
        shown = self._workload.folder.offer(finding, key=key, weight=weight)
        if shown is not None:
            self._records.append(RecordFinding(self._incident, shown))
        if finding.mode is not Mode.ENFORCE:
            return
        self._process = (finding.pid, finding.start_ticks)
        # An exec that was to be denied and has come about all the same is ended.
        late = Response.DENY in finding.responses and isinstance(finding.event, Exec)
        self._kill = self._kill or Response.KILL_PROCESS in finding.responses or late
        self._capture = self._capture or Response.CAPTURE in finding.responses
        self._desired |= containment_for(finding.responses)
        if set(finding.responses) != {Response.ALERT}:
            self._reason = self._reason or f"{finding.policy}/{finding.rule}: {finding.summary}"
        self._hot = self._hot or hot

    def commands(self) -> list[Command]:
        """Findings and what they add up to; the kill (unless the data plane was there first); containment (unless asked for
        before)."""
        out = self._records
        workload = self._workload
        self.sum_up(self._correlator.judge(workload.shown, workload.policies, self._found))
        more = workload.containment | self._desired
        kills = self._kill and Response.KILL_PROCESS not in self._done
        if workload.containment != FREE or isinstance(self._event, Unattended):
            pass  # what is contained costs nothing more, whoever did it; a daemon that was away is no rule's doing
        elif self._done & HITS:
            self._budget.charge(workload.cgroup, self._now)
        elif (kills or more != workload.containment) and not self._budget.take(
            workload.cgroup, self._now, self._watched
        ):
            return self._withheld()
        if kills:
            out.append(KillProcess(workload.id, self._incident, *self._process, self._reason))
        if more != workload.containment or (self._capture and not workload.captured):
            workload.containment = more
            workload.captured = workload.captured or self._capture
            out.append(Contain(workload.id, self._incident, more, self._capture, self._reason, self._hot))
        return out

    def _withheld(self) -> list[Command]:
        """The budget is used up: what was found is told as in monitor mode, and that nothing was done for it."""
        out: list[Command] = [
            replace(c, finding=replace(c.finding, mode=Mode.MONITOR))
            if isinstance(c, RecordFinding) and set(c.finding.responses) - {Response.ALERT}
            else c
            for c in self._records
        ]
        budget, pid, start = self._budget, *self._process
        limits = budget.limits
        seconds = budget.room_ns(self._now, self._watched) / 1e9
        told = (
            f"not done, as rules have hit {len(budget.charged(self._now))} of {self._watched} workloads in the last "
            f"{limits.per_ns / 1e9:g} s, and {limits.most(self._watched)} are allowed: {self._reason}; rules act again in "
            f"{seconds:.0f} s, or when an operator releases one of them, or resets the budget"
        )
        withheld = Finding(
            self._now, self._workload.id, POLICY, WITHHELD.rule, WITHHELD.title, WITHHELD.level, Mode.ENFORCE,
            (Response.ALERT,), (), pid, start, told, self._event,
        )  # fmt: skip
        shown = self._workload.folder.offer(withheld)
        return [*out, RecordFinding(self._incident, shown)] if shown is not None else out


def containment_for(responses: Iterable[Response]) -> Containment:
    """What these responses ask of the workload as a whole."""
    asked = frozenset(responses)
    return Containment(Response.SEVER in asked, Response.FREEZE in asked, Response.TERMINATE in asked)


def done_in_kernel(event: Event) -> frozenset[Response]:
    """What the data plane itself has done about this event."""
    if isinstance(event, Exec | Wire):
        if not event.done:
            return frozenset()
        return frozenset(response for bit, response in _DONE if event.done & bit)
    if isinstance(event, Denied) or (isinstance(event, Connect | Listen) and event.denied):
        return frozenset({Response.DENY})
    return frozenset()


def finding_of(match: CompiledRule, event: Judged, summary: str) -> Finding:
    """This rule's match of this event."""
    rule, mode = match.rule, match.policy.mode
    done = done_in_kernel(event) if mode is Mode.ENFORCE else frozenset()
    in_kernel = tuple(r for r in rule.response if r in done)
    if Response.DENY in rule.response and Response.KILL_PROCESS in done - set(in_kernel):
        in_kernel += (Response.KILL_PROCESS,)  # what deny comes to where no LSM could stop the exec
    return Finding(
        time_ns=event.time_ns,
        workload=event.workload,
        policy=match.policy.name,
        rule=rule.id,
        title=rule.title,
        level=rule.level,
        mode=mode,
        responses=rule.response,
        done_in_kernel=in_kernel,
        pid=event.pid,
        start_ticks=event.start_ticks,
        summary=summary,
        event=event,
        # Whoever acted on it has judged it: otherwise the verdict is ours, and the daemon puts in its time.
        verdict_ns=event.verdict_ns if in_kernel and isinstance(event, Exec | Wire) else 0,
        act=rule.act,
        evidence=rule.evidence,
    )
