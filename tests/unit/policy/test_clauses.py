from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.policy.clauses import (
    All,
    Bit,
    Const,
    Formula,
    Inverse,
    Opaque,
    Some,
    TooManyClauses,
    cheapest_first,
    opaque,
    terms,
)
from killswitch.policy.model import Predicate
from tests.unit.policy.formula_reference import holds

HIDDEN = [Opaque(Predicate("user.id", "match", (uid,)), "why") for uid in (0, 1)]
LEAVES = st.one_of(st.integers(0, 4).map(lambda i: Bit(1 << i)), st.booleans().map(Const), st.sampled_from(HIDDEN))
FORMULAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(Inverse),
        st.lists(inner, max_size=4).map(lambda parts: All(tuple(parts))),
        st.lists(inner, max_size=4).map(lambda parts: Some(tuple(parts))),
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(FORMULAS)
def test_terms_are_the_formula_or_cannot_be_passed_by_it(formula: Formula) -> None:
    made = terms(formula)
    exact = not opaque(formula)
    for bits in range(32):
        passed = any(term.holds(bits) for term in made)
        for known in range(4):
            truth = holds(formula, bits, lambda p: bool(known >> int(p.values[0]) & 1))  # noqa: B023
            assert truth == holds(cheapest_first(formula), bits, lambda p: bool(known >> int(p.values[0]) & 1))  # noqa: B023
            assert passed or not truth
            assert not exact or passed == truth


def test_what_another_term_covers_is_left_out() -> None:
    a, b = Bit(1), Bit(2)
    assert terms(Some((All((a, b)), a))) == terms(a)
    assert terms(All((a, Inverse(a)))) == ()


def test_a_condition_that_multiplies_out_is_refused() -> None:
    odd = All(tuple(Some((Bit(1 << 2 * i), Bit(2 << 2 * i))) for i in range(12)))  # 2^12 terms
    with pytest.raises(TooManyClauses):
        terms(odd)
    assert holds(odd, sum(1 << 2 * i for i in range(12)), lambda p: False)
    wide = Some(tuple(Bit(1 << i) for i in range(65)))
    with pytest.raises(TooManyClauses, match="more than 64"):
        terms(wide)


def test_the_bits_are_asked_before_the_judge() -> None:
    def never(predicate: Predicate) -> bool:
        raise AssertionError(predicate)

    assert not holds(cheapest_first(All((HIDDEN[0], Bit(1)))), 0, never)
    assert holds(cheapest_first(Some((Inverse(HIDDEN[0]), Bit(1)))), 1, never)
