"""Findings add up: what was found of one workload, and the findings of ``on: finding`` rules about the sum.

Which findings add up, and to what, is ``policy.correlation``'s. Here is what a workload has shown, and how a sum is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from killswitch.commands import Finding, Mode, Response
from killswitch.detect.builtin import BUILT_INS, POLICY
from killswitch.detect.summary import MAX_TEXT, printable
from killswitch.policy.compiled import Compiled
from killswitch.policy.correlation import MAX_SOURCES, Correlation, Memory, correlations
from killswitch.policy.sums import Source

TOLD = 5  # rules that a summary names

Key = tuple[str, str]  # (policy name, rule id)


class Shown:
    """What one workload has shown since it was last released, in bounded memory."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.latest: dict[Key, Finding] = {}  # of each rule
        self.told: dict[
            Key, tuple[Mode, tuple[Response, ...]]
        ] = {}  # the sums that were found, and what they asked for
        self.again = False  # other rules, or an earlier daemon's findings: to be judged anew, without a new finding

    def note(self, finding: Finding) -> None:
        """One more finding of a rule that is not itself a sum."""
        source = source_of(finding)
        self.memory.note(source, finding.time_ns)
        self.latest.pop(source.key, None)
        self.latest[source.key] = finding
        if len(self.latest) > MAX_SOURCES:
            del self.latest[next(iter(self.latest))]

    def forget(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.memory.forget(key)
            del self.latest[key]

    def lasts(self, key: Key, time_ns: int) -> None:
        """What this rule has found still goes on: it does not grow old."""
        self.memory.lasts(key, time_ns)


class Correlator:
    """The ``on: finding`` rules of one generation of policies."""

    def __init__(self, compiled: Compiled) -> None:
        self._rules = correlations(compiled)
        self._loaded = {(r.policy.name, r.rule.id) for r in compiled.rules} | {(POLICY, w.rule) for w in BUILT_INS}
        self._sums = {(c.rule.policy.name, c.rule.rule.id) for c in self._rules}

    def take_over(self, shown: Shown) -> None:
        """After a reload: findings of rules that are not loaded any more add up to nothing."""
        shown.forget({key for key in shown.latest if key not in self._loaded})
        shown.again = True

    def judge(self, shown: Shown, policies: int, findings: Iterable[Finding]) -> list[Finding]:
        """Note what was found about one event, then say what that adds up to, once a rule."""
        latest: list[Finding] = []
        for finding in findings:
            shown.note(finding)
            latest.append(finding)
        out = []
        for rule in self._rules:
            if not policies >> rule.rule.policy_index & 1:
                continue
            for finding in latest:
                found = self._match(rule, shown, finding, finding.time_ns)
                if found is not None:
                    out.append(found)
                    break
        return out

    def judge_again(self, shown: Shown, policies: int, now_ns: int) -> list[Finding]:
        """After a reload or a restart: what was seen before, by the rules of now. What was told before is not told again."""
        shown.again = False
        out = []
        for rule in self._rules:
            key = rule.rule.policy.name, rule.rule.rule.id
            if not policies >> rule.rule.policy_index & 1 or shown.told.get(key) == _asks(rule):
                continue
            for finding in reversed(list(shown.latest.values())):
                found = self._match(rule, shown, finding, now_ns)
                if found is not None:
                    out.append(found)
                    break
        return out

    def recall(self, shown: Shown, findings: Iterable[Finding]) -> None:
        """Take up what an earlier daemon found, oldest first."""
        for finding in findings:
            key = finding.policy, finding.rule
            if key in self._sums or (finding.act and not finding.evidence):
                shown.told[key] = finding.mode, finding.responses
            else:
                shown.note(finding)
        self.take_over(shown)

    def _match(self, rule: Correlation, shown: Shown, latest: Finding, now_ns: int) -> Finding | None:
        rests_on = rule.judge(source_of(latest), now_ns, shown.memory)
        if not rests_on:
            return None
        compiled = rule.rule
        shown.told[compiled.policy.name, compiled.rule.id] = _asks(rule)
        return Finding(
            time_ns=now_ns,
            workload=latest.workload,
            policy=compiled.policy.name,
            rule=compiled.rule.id,
            title=compiled.rule.title,
            level=compiled.rule.level,
            mode=compiled.policy.mode,
            responses=compiled.rule.response,
            done_in_kernel=(),
            pid=latest.pid,
            start_ticks=latest.start_ticks,
            summary=told(rests_on, [f for s in rests_on if (f := shown.latest.get(s.key)) is not None]),
            event=latest.event,
            act=latest.act,
        )


def source_of(finding: Finding) -> Source:
    return Source(
        finding.policy, finding.rule, finding.act or "", finding.evidence or "", str(finding.level), str(finding.mode)
    )


def told(rests_on: Sequence[Source], findings: Sequence[Finding]) -> str:
    """``mining by arguments and behaviour, in 34.2 s: miner-argument (…); sustained-hashing (…)``"""
    kinds: dict[str, set[str]] = {}
    for source in rests_on:
        if source.act:
            kinds.setdefault(source.act, set()).add(source.evidence)
    sums = "; ".join(f"{act} by {' and '.join(sorted(kinds[act] - {''})) or '?'}" for act in sorted(kinds))
    times = [f.time_ns for f in findings]
    span = f", in {(max(times) - min(times)) / 1e9:.1f} s" if len(times) > 1 else ""
    each = [f"{f.rule} ({printable(f.summary, MAX_TEXT)})" for f in findings[-TOLD:]]
    if len(findings) > TOLD:
        each.insert(0, f"{len(findings) - TOLD} more")
    return f"{sums or 'findings'}{span}: {'; '.join(each)}"


def _asks(rule: Correlation) -> tuple[Mode, tuple[Response, ...]]:
    return rule.rule.policy.mode, rule.rule.rule.response
