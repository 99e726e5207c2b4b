"""Conditions: Sigma's grammar, and errors that point at the character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.policy.condition import ConditionError, parse_condition
from killswitch.policy.model import And, Expr, Not, Or, Predicate


def p(name: str) -> Predicate:
    return Predicate(name, "match", (name,))


A, B, C, X1, X2, HIDDEN = (p(n) for n in ("a", "b", "c", "x_1", "x_2", "_h"))
NAMES: dict[str, Expr] = {e.field: e for e in (A, B, C, X1, X2, HIDDEN)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a", A),
        ("a or b and not c", Or((A, And((B, Not(C)))))),
        ("(a or b) and c", And((Or((A, B)), C))),
        ("not a and b", And((Not(A), B))),
        ("not not a", Not(Not(A))),
        ("a and b and c", And((A, B, C))),
        ("1 of x_*", Or((X1, X2))),
        ("any of x_*", Or((X1, X2))),
        ("all of x_*", And((X1, X2))),
        ("1 of *_1", X1),
        ("1 of them", Or((A, B, C, X1, X2))),
        ("all of them and _h", And((And((A, B, C, X1, X2)), HIDDEN))),
        ("not 1 of x_* or a", Or((Not(Or((X1, X2))), A))),
        ("not(a)and(b)", And((Not(A), B))),
    ],
)
def test_grammar(source: str, expected: Expr) -> None:
    assert parse_condition(source, NAMES)[0] == expected


def test_the_names_that_were_used_are_told() -> None:
    assert parse_condition("a and 1 of x_*", NAMES)[1] == {"a", "x_1", "x_2"}


@pytest.mark.parametrize(
    ("source", "offset", "message", "hint"),
    [
        ("a and bb", 6, "'bb' is not a name of 'match'", "did you mean 'b'?"),
        ("a AND b", 2, "expected 'and' or 'or' before 'AND'", "write 'and' in lower case"),
        ("a b", 2, "expected 'and' or 'or' before 'b'", ""),
        ("(a or b", 0, "this '(' is never closed", "add ')'"),
        ("(a b)", 0, "this '(' is not closed before 'b'", "add ')'"),
        ("a or b)", 6, "this ')' closes nothing", "remove it, or add the '('"),
        ("a and", 5, "the condition ends where a name of 'match', 'not' or '(' is expected", ""),
        ("and a", 0, "expected a name of 'match' before 'and'", ""),
        ("a or ()", 6, "expected a name of 'match' before ')'", ""),
        ("2 of x_*", 0, "'2' of: only '1 of' and 'all of' are known", ""),
        ("1 of y*", 5, "'y*' fits no name of 'match'", "known: _h, a, b, c, x_1, x_2"),
        ("1 of", 4, "the condition ends where 'them', a name or a name with '*' is expected", ""),
        ("x_*", 0, "'x_*' is not a name of 'match'", "write '1 of x_*' or 'all of x_*'"),
        ("a | count() > 5", 2, "'|' is not part of a condition",
         "pipes (aggregations) are not part of conditions here; 'for:' tells how long"),
        ("  ", 0, "the condition is empty", "name what 'match' must hold, as in 'condition: name'"),
        ("(" * 40 + "a" + ")" * 40, 33, "nested more than 32 deep", ""),
        ("a or " * 1000 + "a", 0, "the condition is longer than 4096 characters", "split the rule"),
    ],
)  # fmt: skip
def test_errors_point_at_the_character(source: str, offset: int, message: str, hint: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse_condition(source, NAMES)
    assert (caught.value.offset, caught.value.message, caught.value.hint) == (offset, message, hint)


TOKENS = st.sampled_from(
    ["a", "b", "x_1", "and", "or", "not", "(", ")", "1 of x_*", "all of them", "1", "of", "them", "*", "|"]
)


def truth(expr: Expr, true: frozenset[str]) -> bool:
    match expr:
        case Predicate(field=name):
            return name in true
        case Not(part):
            return not truth(part, true)
        case And(parts):
            return all(truth(e, true) for e in parts)
        case Or(parts):
            return any(truth(e, true) for e in parts)


@given(st.lists(TOKENS, max_size=12), st.frozensets(st.sampled_from(["a", "b", "x_1"])))
def test_whatever_parses_means_what_python_means_by_it(tokens: list[str], true: frozenset[str]) -> None:
    """Python's own not > and > or is the oracle: the quantities are spelt out for it."""
    matches: dict[str, Expr] = {n: p(n) for n in ("a", "b", "x_1")}
    try:
        expr, _ = parse_condition(" ".join(tokens), matches)
    except ConditionError:
        return
    spelt = " ".join(tokens).replace("1 of x_*", "x_1").replace("all of them", "(a and b and x_1)")
    spelt = spelt.replace("1 of them", "(a or b or x_1)").replace("1 of a", "a").replace("1 of b", "b")
    spelt = spelt.replace("1 of x_1", "x_1").replace("1 of *", "(a or b or x_1)")
    assert truth(expr, true) is bool(eval(spelt, {}, {n: n in true for n in matches}))


@given(st.text(max_size=80))
def test_any_text_is_a_condition_or_an_error_within_it(source: str) -> None:
    try:
        parse_condition(source, NAMES)
    except ConditionError as error:
        assert 0 <= error.offset <= len(source)
