"""A rule's formula as nested Python functions, made once for each kind of event: 100,000 events a second ask them.

Put ``clauses.cheapest_first``, so that what has to be judged seldom is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from killswitch.policy import matcher
from killswitch.policy.clauses import All, Bit, Const, Formula, Inverse, Opaque, Some
from killswitch.policy.fields import Subject, reader
from killswitch.policy.model import Predicate

Decision = Callable[
    [int, Subject, Mapping[str, object]], bool
]  # predicate bits, the event, fields that it does not hold


def decision(formula: Formula, kind: type) -> Decision:
    """For events of exactly this type."""
    match formula:
        case Bit(mask):
            return lambda bits, event, extra: bool(bits & mask)
        case Opaque(predicate, _):
            return _judged(predicate, kind)
        case Const(value):
            return lambda bits, event, extra: value
        case Inverse(part):
            inner = decision(part, kind)
            return lambda bits, event, extra: not inner(bits, event, extra)
        case All(parts):
            return _chain(tuple(decision(part, kind) for part in parts), decided_by=False)
        case Some(parts):
            return _chain(tuple(decision(part, kind) for part in parts), decided_by=True)
    raise TypeError(f"no formula: {formula!r}")


def _judged(predicate: Predicate, kind: type) -> Decision:
    values, holds = reader(predicate.field, kind), matcher.judge_of(predicate)
    return lambda bits, event, extra: holds(values(event, extra))


def _chain(parts: tuple[Decision, ...], *, decided_by: bool) -> Decision:
    """The first part that comes out as ``decided_by`` decides."""

    def decide(bits: int, event: Subject, extra: Mapping[str, object]) -> bool:
        for part in parts:
            if part(bits, event, extra) is decided_by:
                return decided_by
        return not decided_by

    return decide
