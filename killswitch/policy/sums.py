"""What an ``on: finding`` rule is asked about: one finding, and what the findings of its workload add up to."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.policy.model import Expr, Not, Predicate

COUNTED = 256  # findings of one rule that ``finding.count`` goes up to: memory is bounded, and that many are many
SUMS = ("finding.kinds", "finding.rules", "finding.count", "finding.acts")  # the fields that are sums


@dataclass(frozen=True, slots=True)
class Source:
    """A rule as its findings tell of it; "" for what it does not say."""

    policy: str
    rule: str
    act: str
    evidence: str
    level: str
    mode: str

    @property
    def key(self) -> tuple[str, str]:
        return self.policy, self.rule


@dataclass(frozen=True, slots=True)
class Sums:
    """The latest finding, and the sums over those of its workload that add up in the rule within its timespan.

    All but ``acts`` are of the latest finding's act.
    """

    source: Source
    kinds: int  # distinct kinds of evidence
    rules: int  # distinct rules
    count: int  # findings, each rule's up to COUNTED
    acts: int  # distinct acts


def sums_of(expr: Expr) -> frozenset[str]:
    """The sums that the condition asks for."""
    match expr:
        case Predicate():
            return frozenset({expr.field}) & frozenset(SUMS)
        case Not(part):
            return sums_of(part)
    return frozenset[str]().union(*map(sums_of, expr.parts))
