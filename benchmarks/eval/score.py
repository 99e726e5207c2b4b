"""Figures out of outcomes: recall, harm, times, bytes, by class and by evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.eval.model import EVIDENCE, Case
from benchmarks.eval.outcome import Outcome
from benchmarks.harness import percentile


@dataclass(frozen=True, slots=True)
class Caught:
    """Of some malicious cases: how many were stopped, how fast, and what got out before."""

    cases: int
    contained: int  # severed, frozen
    denied: int  # nothing left, nothing attained, workload goes on
    escaped: tuple[str, ...]
    verdict_p50_s: float | None  # from the start of the workload
    verdict_p99_s: float | None
    bytes_p50: int
    bytes_max: int
    silent: int  # of the stopped: not one byte of payload left

    @property
    def recall(self) -> float:
        return (self.contained + self.denied) / self.cases if self.cases else 1.0


def caught(outcomes: Iterable[Outcome]) -> Caught:
    mine = [o for o in outcomes if o.malicious]
    good = [o for o in mine if o.good()]
    times = [o.verdict_s for o in good if o.verdict_s is not None]
    left = [o.bytes_left for o in good]
    return Caught(
        cases=len(mine),
        contained=sum(o.contained != "free" for o in good),
        denied=sum(o.contained == "free" for o in good),
        escaped=tuple(o.case for o in mine if not o.good()),
        verdict_p50_s=percentile(times, 0.5) if times else None,
        verdict_p99_s=percentile(times, 0.99) if times else None,
        bytes_p50=int(percentile(left, 0.5)) if left else 0,
        bytes_max=max(left, default=0),
        silent=sum(not b for b in left),
    )


@dataclass(frozen=True, slots=True)
class Alone:
    """What one kind of evidence, by itself, came to in the malicious cases."""

    evidence: str
    acts: int
    alerts: int  # said so, and no more
    only: tuple[str, ...]  # cases that nothing else has acted on
    missed: tuple[str, ...]  # cases that say that it should catch them, and that it did not act on


def alone(outcomes: Iterable[Outcome], cases: Iterable[Case]) -> list[Alone]:
    """One row a kind. Where a case was contained by one kind, later ones had no chance: run in monitor mode to see them all."""
    expected = {c.id: c.evidence for c in cases}
    mine = [o for o in outcomes if o.malicious and not o.error]
    return [
        Alone(
            evidence=kind,
            acts=sum(o.by_evidence(kind) == "acts" for o in mine),
            alerts=sum(o.by_evidence(kind) == "alerts" for o in mine),
            only=tuple(o.case for o in mine if set(o.caught_by) == {kind}),
            missed=tuple(o.case for o in mine if kind in expected.get(o.case, ()) and o.by_evidence(kind) != "acts"),
        )
        for kind in EVIDENCE
    ]


@dataclass(frozen=True, slots=True)
class Harm:
    """Of some innocent cases: what was done to them."""

    cases: int
    severed: tuple[str, ...]
    killed: tuple[str, ...]
    denied: tuple[str, ...]
    broken: tuple[str, ...]  # the harness could not run it, or its work failed
    alerts: int  # findings that only said so
    noisy: tuple[tuple[str, int], ...]  # (rule, cases that it alerted on), most first

    @property
    def harmed(self) -> int:
        return len(self.severed) + len(self.killed) + len(self.denied) + len(self.broken)


def harm(outcomes: Iterable[Outcome], cases: Iterable[Case]) -> Harm:
    status = {c.id: c.status for c in cases}
    mine = [o for o in outcomes if not o.malicious]
    done = {o.case: "broken" if o.error else o.harm(status=status.get(o.case, 0)) for o in mine}
    rules: dict[str, set[str]] = {}
    for o in mine:
        for f in o.found:
            if not f.acts:
                rules.setdefault(f.rule, set()).add(o.case)
    noisy = sorted(((rule, len(where)) for rule, where in rules.items()), key=lambda x: (-x[1], x[0]))
    return Harm(
        cases=len(mine),
        severed=tuple(c for c, word in done.items() if word == "severed"),
        killed=tuple(c for c, word in done.items() if word == "killed"),
        denied=tuple(c for c, word in done.items() if word == "denied"),
        broken=tuple(c for c, word in done.items() if word == "broken"),
        alerts=sum(not f.acts for o in mine for f in o.found),
        noisy=tuple(noisy),
    )


def weakest(outcomes: Sequence[Outcome], count: int = 8) -> list[Outcome]:
    """The stopped ones that came nearest to their goal: attained it first, let most bytes out, took longest."""
    stopped = [o for o in outcomes if o.malicious and o.good()]
    return sorted(stopped, key=lambda o: (not o.goal_reached, -o.bytes_left, -(o.verdict_s or 0)))[:count]


def passed(outcomes: Iterable[Outcome], cases: Iterable[Case]) -> bool:
    """Every malicious one stopped, no innocent one harmed, every one of ``cases`` run."""
    outcomes, cases = list(outcomes), list(cases)
    status = {c.id: c.status for c in cases}
    return {o.case for o in outcomes} >= status.keys() and all(o.good(status=status.get(o.case, 0)) for o in outcomes)
