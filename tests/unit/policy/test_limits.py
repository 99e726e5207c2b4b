"""How far policies may go by themselves: the budget, and what is done with who floods."""

from __future__ import annotations

import pytest

from killswitch.commands import Response
from killswitch.errors import PolicyError
from killswitch.policy.limits import Limits, OnFlood, limits, on_flood
from tests.unit.policy.test_absence import policy


def test_the_strictest_budget_in_each_part_holds_for_the_host() -> None:
    wide = policy("budget: {contained: 10, per: 5m, share: 60%}")
    long = policy("budget: {contained: 20, per: 1h}")
    assert limits([wide], Limits()) == Limits(10, 300_000_000_000, 0.6)
    assert limits([wide, long, policy()], Limits()) == Limits(10, 3_600_000_000_000, 0.5)
    assert limits([policy(), policy()], Limits(1, 2, 0.0)) == Limits(1, 2, 0.0)


@pytest.mark.parametrize(
    ("watched", "most"),
    [(0, 5), (1, 5), (4, 5), (20, 5), (21, 6), (100, 25)],
)
def test_the_number_counts_on_a_small_host_and_the_share_on_a_large_one(watched: int, most: int) -> None:
    assert Limits(5, 1, 0.25).most(watched) == most


def test_who_floods_is_done_to_as_the_strictest_says_but_not_one_that_monitors() -> None:
    sever, freeze = policy("on_flood: sever"), policy("on_flood: freeze")
    assert on_flood([policy(), sever]) is OnFlood.SEVER
    assert on_flood([freeze, sever]) is OnFlood.FREEZE
    assert on_flood([policy("on_flood: freeze", mode="monitor"), policy()]) is OnFlood.ALERT
    assert on_flood([]).responses == ()
    assert OnFlood.FREEZE.responses == (Response.SEVER, Response.FREEZE, Response.CAPTURE)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("on_flood: shoot", "is not a word for on_flood"),
        ("budget: {contained: -1}", "must be a whole number"),
        ("budget: {share: 0.5}", "must be a percentage"),
        ("budget: {share: 101%}", "must be from 0% to 100%"),
        ("budget: {per: 100ms}", "must be from 1s to 24h"),
        ("budget: {per: 10}", "must be a duration"),
        ("budget: {often: 3}", "unknown key"),
        ("budget: 5", "must be a mapping"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(more: str, words: str) -> None:
    with pytest.raises(PolicyError) as refused:
        policy(more)
    [problem] = refused.value.problems
    assert words in f"{problem.message} {problem.hint}"
    assert problem.line == 6
