"""``on: finding``: the findings of a workload add up, and rules judge the sum.

Which findings add up in a rule is said by its condition without the sums in it: with ``finding.act: mining`` and
``finding.kinds|gte: 2`` it is every finding of mining. That is a matter of the rules, not of what happens, so it is worked
out once for each rule. Findings of ``on: finding`` rules never add up: there is no loop to be made.

A finding that was only monitored adds up in rules that only monitor: a rule that is being tried out must stop no work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

from killswitch.commands import Mode
from killswitch.policy.clauses import judged_whole
from killswitch.policy.compiled import Compiled, CompiledRule
from killswitch.policy.decide import Decision, decision
from killswitch.policy.model import And, Expr, Not, Or, Predicate
from killswitch.policy.sums import COUNTED, SUMS, Source, Sums

MAX_SOURCES = 1024  # rules of which one workload's findings are remembered; the longest quiet is forgotten first
NOTHING: Mapping[str, object] = MappingProxyType({})


class Memory:
    """When each rule was found in one workload."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[Source, deque[int]]] = {}  # the longest quiet first

    def note(self, source: Source, time_ns: int) -> None:
        """One more finding."""
        _, times = self._found.pop(source.key, (None, deque[int](maxlen=COUNTED)))
        times.append(max(time_ns, times[-1]) if times else time_ns)
        self._found[source.key] = source, times
        if len(self._found) > MAX_SOURCES:
            del self._found[next(iter(self._found))]

    def lasts(self, key: tuple[str, str], time_ns: int) -> None:
        """The latest finding of this rule still holds: it is not one more, but it does not grow old either."""
        known = self._found.get(key)
        if known is not None:
            known[1][-1] = max(time_ns, known[1][-1])

    def forget(self, key: tuple[str, str]) -> None:
        self._found.pop(key, None)

    def since(self, time_ns: int) -> list[tuple[Source, int]]:
        """Every rule that was found then or later, and how often."""
        recent = []
        for source, times in self._found.values():
            if times[-1] >= time_ns:
                recent.append((source, sum(1 for t in times if t >= time_ns)))
        return recent


class Correlation:
    """One ``on: finding`` rule."""

    def __init__(self, rule: CompiledRule) -> None:
        self.rule = rule
        condition = rule.rule.condition
        rest = without_sums(condition)
        self._holds = _decide(condition)
        self._fits = _decide(rest) if rest is not None else None
        self._adds: dict[Source, bool] = {}

    def adds(self, source: Source) -> bool:
        """Whether findings of that rule add up in this one."""
        known = self._adds.get(source)
        if known is None:
            if len(self._adds) >= MAX_SOURCES:
                self._adds.clear()  # of rules that are gone
            known = self._adds[source] = self._would_add(source)
        return known

    def _would_add(self, source: Source) -> bool:
        if self.rule.policy.mode is Mode.ENFORCE and source.mode != Mode.ENFORCE:
            return False
        return self._fits is None or self._fits(0, Sums(source, 0, 0, 0, 0), NOTHING)

    def judge(self, latest: Source, now_ns: int, memory: Memory) -> tuple[Source, ...]:
        """What the match rests on, now that ``latest`` was found; () = the rule does not match.

        ``memory`` has that finding already.
        """
        if not self.adds(latest):
            return ()
        found = [(s, n) for s, n in memory.since(now_ns - self.rule.rule.timespan_ns) if self.adds(s)]
        same = [(s, n) for s, n in found if s.act == latest.act]
        sums = Sums(
            latest,
            kinds=len({s.evidence for s, _ in same if s.evidence}),
            rules=len(same),
            count=sum(n for _, n in same),
            acts=len({s.act for s, _ in found if s.act}),
        )
        if not self._holds(0, sums, NOTHING):
            return ()
        return tuple(s for s, _ in (found if "finding.acts" in self.rule.fields else same))


def correlations(compiled: Compiled) -> tuple[Correlation, ...]:
    """The ``on: finding`` rules, in their order."""
    return tuple(Correlation(rule) for rule in compiled.rules if rule.rule.on == "finding")


def without_sums(expr: Expr) -> Expr | None:
    """The condition as if every sum were large enough; None = it asks for nothing else."""
    match expr:
        case Predicate():
            return None if expr.field in SUMS else expr
        case Not(part):
            kept = without_sums(part)
            return None if kept is None else Not(kept)
        case And(parts):
            some = tuple(kept for part in parts if (kept := without_sums(part)) is not None)
            return And(some) if some else None
        case Or(parts):
            each = tuple(without_sums(part) for part in parts)
            return None if None in each else Or(tuple(kept for kept in each if kept is not None))


def _decide(expr: Expr) -> Decision:
    return decision(judged_whole(expr), Sums)
