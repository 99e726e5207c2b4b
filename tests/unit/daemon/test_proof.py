"""What a proof comes to, and when it is too old."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from killswitch.commands import Outcome, Receipt, Step
from killswitch.daemon import proofpolicy
from killswitch.daemon.proof import Keeper, judge
from killswitch.ledger.records import OrderRecord

DAY = 86400.0


def receipt(step: Step, outcome: Outcome = Outcome.DONE, error: str = "") -> Receipt:
    return Receipt(step, outcome, 1, 0, 1, {}, error)


@pytest.mark.parametrize(
    ("receipts", "came_to"),
    [
        ([receipt(Step.FLOW), receipt(Step.SILENCE), receipt(Step.CLEAN_UP)], ("complete", "")),
        ([receipt(Step.SILENCE, Outcome.FAILED, "heard")], ("failed", "silence: heard")),
        ([receipt(Step.SILENCE), receipt(Step.DETECT, Outcome.FAILED, "it ran")], ("failed", "detect: it ran")),
        ([receipt(Step.SILENCE), receipt(Step.DETECT, Outcome.REFUSED, "no room")], ("partial", "detect: no room")),
        ([receipt(Step.SILENCE), receipt(Step.CLEAN_UP, Outcome.FAILED, "busy")], ("partial", "clean_up: busy")),
        ([receipt(Step.FLOW), receipt(Step.CLEAN_UP)], ("failed", "nothing was seen")),
        ([], ("failed", "nothing was seen")),
    ],
)
def test_what_it_comes_to(receipts: list[Receipt], came_to: tuple[str, str]) -> None:
    assert judge(receipts) == came_to


def keeper(
    every: float, *past: tuple[float, str, str], monkeypatch: pytest.MonkeyPatch, now: float = 100 * DAY
) -> Keeper:
    monkeypatch.setattr("killswitch.daemon.proof.time.time", lambda: now)
    orders = [
        OrderRecord("o", "r", "selftest", "host", "timer", "daemon", at, 0, "", out, err) for at, out, err in past
    ]

    def last_order(verb: str, *outcomes: str) -> OrderRecord | None:
        return next((o for o in reversed(orders) if o.outcome in outcomes), None)

    core: Any = SimpleNamespace(records=SimpleNamespace(last_order=last_order))
    return Keeper(core, every)


def test_the_last_one_is_remembered_with_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100 * DAY
    past = [(now - 7200, "complete", ""), (now - 60, "failed", "still: 3 ns"), (now - 10, "accepted", "")]
    state = keeper(3600.0, *past, monkeypatch=monkeypatch).state()
    assert (state.at_unix, state.ok, state.detail) == (now - 60, False, "still: 3 ns")  # not the one that was cut short
    assert state.good_unix == now - 7200
    assert not state.stands


@pytest.mark.parametrize(
    ("every", "age", "fresh"), [(3600, 3600, True), (3600, 7000, True), (3600, 7400, False), (0, 400 * DAY, True)]
)
def test_it_gets_too_old_only_when_a_timer_should_have_renewed_it(
    monkeypatch: pytest.MonkeyPatch, every: float, age: float, fresh: bool
) -> None:
    kept = keeper(every, (1000 * DAY - age, "complete", ""), monkeypatch=monkeypatch, now=1000 * DAY)
    assert kept.state().fresh is fresh
    assert kept.state().stands is fresh
    assert kept.health().ok is fresh
    assert ("too old" in kept.health().detail) is not fresh


def test_never_proven_is_not_well_only_when_it_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100 * DAY
    kept = keeper(3600.0, monkeypatch=monkeypatch, now=now)
    assert kept.health().ok
    assert not kept.state().stands
    monkeypatch.setattr("killswitch.daemon.proof.time.time", lambda: now + 7300)
    assert not kept.health().ok
    assert "there was none yet" in kept.health().detail


def test_only_a_self_tests_own_cgroup_is_a_canarys() -> None:
    parent = "/a/ks"
    assert proofpolicy.is_canary("/a/ks.proof-12-345", parent)
    for other in (
        "/a/ks.proof-",
        "/a/ks.proof-1",
        "/a/ks.proof-1-2/x",
        "/a/ks/x.proof-1-2",
        "/b.proof-1-2",
        "/a/ks",
        "/",
    ):
        assert not proofpolicy.is_canary(other, parent), other


def test_the_canarys_policy_comes_last_and_is_no_operators() -> None:
    compiled = proofpolicy.compile_with([])
    assert proofpolicy.index_in(compiled) == 0
    assert proofpolicy.operators(compiled) == ()
    assert {(c.rule.id, c.tier) for c in compiled.rules} == {("canary-must-not-run", 1), ("canary-must-not-leave", 2)}
