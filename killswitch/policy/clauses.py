"""A rule's condition over predicate bits, and as clauses: ``predicates & mask == value``, any of which suffices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from killswitch.policy.model import And, Expr, Not, Or, Predicate

MAX_PRODUCTS = 512  # while a condition is multiplied out
MAX_CLAUSES_OF_RULE = 64


class TooManyClauses(Exception):
    """The condition multiplies out to more clauses than a rule may have."""


@dataclass(frozen=True, slots=True)
class Bit:
    """A predicate that the walk judges."""

    mask: int  # one bit


@dataclass(frozen=True, slots=True)
class Opaque:
    """A predicate that only tier 3 can judge, and why."""

    predicate: Predicate
    why: str


@dataclass(frozen=True, slots=True)
class Const:
    value: bool


@dataclass(frozen=True, slots=True)
class Inverse:
    part: Formula


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Some:
    parts: tuple[Formula, ...]


Formula = Bit | Opaque | Const | Inverse | All | Some


class Term(NamedTuple):
    """Holds when ``predicates & mask == value``."""

    mask: int
    value: int

    def holds(self, predicates: int) -> bool:
        return predicates & self.mask == self.value

    def and_(self, other: Term) -> Term | None:
        """Both; None when they contradict each other."""
        common = self.mask & other.mask
        if (self.value ^ other.value) & common:
            return None
        return Term(self.mask | other.mask, self.value | other.value)

    def covers(self, other: Term) -> bool:
        """Whether this one holds wherever ``other`` does."""
        return self.mask & ~other.mask == 0 and other.value & self.mask == self.value


def opaque(formula: Formula) -> tuple[Opaque, ...]:
    """What in it only tier 3 can judge."""
    match formula:
        case Opaque():
            return (formula,)
        case Inverse(part):
            return opaque(part)
        case All(parts) | Some(parts):
            return tuple(found for part in parts for found in opaque(part))
    return ()


def terms(formula: Formula) -> tuple[Term, ...]:
    """The fewest terms found, one of which holds whenever the formula does; and only then, if nothing in it is opaque.

    Opaque predicates count as open either way, so with them this is what the bits alone cannot rule out. Raises
    TooManyClauses.
    """
    found = _terms(formula, positive=True)
    if len(found) > MAX_CLAUSES_OF_RULE:
        raise TooManyClauses(f"its condition makes more than {MAX_CLAUSES_OF_RULE} clauses")
    return found


def _terms(formula: Formula, *, positive: bool) -> tuple[Term, ...]:
    match formula:
        case Bit(mask):
            return (Term(mask, mask if positive else 0),)
        case Opaque():
            return (Term(0, 0),)
        case Const(value):
            return (Term(0, 0),) if value is positive else ()
        case Inverse(part):
            return _terms(part, positive=not positive)
        case All(parts) | Some(parts):
            expanded = [_terms(part, positive=positive) for part in parts]
            if isinstance(formula, All) is positive:
                return _product(expanded)
            return _simplest(term for part in expanded for term in part)
    raise TypeError(f"no formula: {formula!r}")


def _product(factors: list[tuple[Term, ...]]) -> tuple[Term, ...]:
    product: tuple[Term, ...] = (Term(0, 0),)
    for factor in factors:
        if len(product) * len(factor) > 16 * MAX_PRODUCTS:
            raise TooManyClauses(f"its condition makes more than {MAX_PRODUCTS} clauses on the way")
        product = _simplest(both for one in product for other in factor if (both := one.and_(other)) is not None)
    return product


def _simplest(found: Iterable[Term]) -> tuple[Term, ...]:
    """Without what another term covers, in the order found."""
    distinct = list(dict.fromkeys(found))
    if len(distinct) > MAX_PRODUCTS:
        raise TooManyClauses(f"its condition makes more than {MAX_PRODUCTS} clauses on the way")
    if len(distinct) == 1:
        return (distinct[0],)
    return tuple(t for t in distinct if not any(o is not t and o.covers(t) for o in distinct))


def judged_whole(expr: Expr) -> Formula:
    """The condition of a rule on what the kernel does not judge: each predicate by itself, no bits."""
    match expr:
        case Predicate():
            return Opaque(expr, "")
        case Not(part):
            return Inverse(judged_whole(part))
        case And(parts):
            return All(tuple(map(judged_whole, parts)))
        case Or(parts):
            return Some(tuple(map(judged_whole, parts)))


def cheapest_first(formula: Formula) -> Formula:
    """The same formula, with what the bits decide before what has to be judged."""
    match formula:
        case Inverse(part):
            return Inverse(cheapest_first(part))
        case All(parts) | Some(parts):
            ordered = sorted(map(cheapest_first, parts), key=lambda part: len(opaque(part)))
            return All(tuple(ordered)) if isinstance(formula, All) else Some(tuple(ordered))
    return formula
