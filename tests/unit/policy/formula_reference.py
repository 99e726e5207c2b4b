"""What a formula means, as plainly as it can be said."""

from __future__ import annotations

from collections.abc import Callable

from killswitch.policy.clauses import All, Bit, Const, Formula, Inverse, Opaque, Some
from killswitch.policy.model import Predicate


def holds(formula: Formula, predicates: int, judge: Callable[[Predicate], bool]) -> bool:
    """The formula's truth; ``judge`` is asked for opaque predicates."""
    match formula:
        case Bit(mask):
            return bool(predicates & mask)
        case Opaque(predicate, _):
            return judge(predicate)
        case Const(value):
            return value
        case Inverse(part):
            return not holds(part, predicates, judge)
        case All(parts):
            return all(holds(part, predicates, judge) for part in parts)
        case Some(parts):
            return any(holds(part, predicates, judge) for part in parts)
    raise TypeError(f"no formula: {formula!r}")
