"""``selftest`` and the proof in ``status``: what is printed, and which exit status it has."""

from __future__ import annotations

import json
import time

import pytest

from killswitch.cli.exits import Exit
from killswitch.cli.selftest import MEANS, exit_of
from killswitch.cli.status import proof_line
from killswitch.commands import FREE, Outcome, Receipt, Step
from killswitch.control.service import OrderResult, Proof
from killswitch.errors import Denied, TimedOut
from tests.unit.cli.conftest import Call
from tests.unit.cli.house import SEVERED_FROZEN, House, workload

WHOLE = (
    Step.FLOW, Step.DETECT, Step.SEVER, Step.SILENCE, Step.FREEZE, Step.DESTROY_SOCKETS, Step.STILL, Step.THAW,
    Step.RECONNECT, Step.CLEAN_UP,
)  # fmt: skip


def result(*, steps: tuple[Step, ...] = WHOLE, failed: Step | None = None, refused: Step | None = None) -> OrderResult:
    made = []
    for n, step in enumerate(steps):
        outcome = Outcome.FAILED if step is failed else Outcome.REFUSED if step is refused else Outcome.DONE
        error = "" if outcome is Outcome.DONE else f"{step} was not seen"
        made.append(Receipt(step, outcome, 7, n * 10_000_000, n * 10_000_000 + 5_000_000, {"ms": 5.0}, error))
    canary = workload("self-test", observed=FREE)
    return OrderResult("ord-1", canary, "", tuple(made), failed is None and refused is None and bool(steps))


def test_it_tells_every_step_and_what_it_was_for(house: House, call: Call) -> None:
    house.result = result()
    done = call("selftest")
    assert done.exit_code == 0
    assert "The switch can halt" in done.stdout
    for step in WHOLE:
        assert f"{step} " in done.stdout
        assert MEANS[step] in done.stdout
    assert done.stderr == ""
    assert house.told[-1][1].reason  # kept in the audit, also when nobody gave one
    assert json.loads(call("selftest", "-o", "json", "--reason", "after an upgrade").stdout)["complete"] is True
    assert house.told[-1][1].reason == "after an upgrade"


def test_a_failed_step_is_loud_and_named(house: House, call: Call) -> None:
    house.result = result(failed=Step.SILENCE)
    done = call("selftest", "-o", "json")
    assert done.exit_code == 1
    assert done.stderr == "killswitch: the proof is FAILED: silence: silence was not seen\n"
    assert "NOT PROVEN" in call("selftest").stdout


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (result(), Exit.DONE),
        (result(failed=Step.FLOW, steps=(Step.FLOW, Step.CLEAN_UP)), Exit.FAILED),
        (result(failed=Step.STILL), Exit.FAILED),
        (result(failed=Step.DETECT), Exit.FAILED),
        (result(failed=Step.CLEAN_UP), Exit.PARTLY),
        (result(refused=Step.DETECT), Exit.PARTLY),
        (result(refused=Step.SEVER, steps=(Step.FLOW, Step.SEVER)), Exit.FAILED),  # it came to no cut at all
        (result(steps=()), Exit.FAILED),
    ],
)
def test_its_exit_status(given: OrderResult, code: Exit) -> None:
    assert exit_of(given) is code


@pytest.mark.parametrize(("error", "code"), [(Denied("no"), 4), (TimedOut("late"), 6)])
def test_errors_keep_their_exit_status(house: House, call: Call, error: Exception, code: int) -> None:
    house.error = error
    assert call("selftest").exit_code == code


NOW = time.time()


@pytest.mark.parametrize(
    ("proof", "told"),
    [
        (Proof(), "none yet; ask for one: killswitch selftest"),
        (Proof(due_unix=NOW + 2, every_s=3600), "none yet; due in 2.0s"),
        (
            Proof(NOW - 720, True, True, "", NOW - 720, NOW + 2880, 3600),
            "it was seen to halt 12m00s ago; again in 48m00s",
        ),
        (Proof(NOW - 720, True, True, "", NOW - 720), "it was seen to halt 12m00s ago; only when asked"),
        (
            Proof(NOW - 86400, True, False, "", NOW - 86400, NOW, 3600),
            "it was seen to halt 1d00h ago: too long, it is due every 1h00m",
        ),
        (
            Proof(NOW - 60, False, True, "silence: heard", NOW - 3660, NOW, 3600),
            "FAILED 1m00s ago: silence: heard; it last passed 1h01m ago",
        ),
        (Proof(NOW - 60, False, True, "still: 3 ns"), "FAILED 1m00s ago: still: 3 ns; it has never passed"),
    ],
)
def test_the_status_tells_how_old_it_is(proof: Proof, told: str) -> None:
    assert proof_line(proof, NOW).plain == told


def test_the_status_names_who_is_contained(house: House, call: Call) -> None:
    cut = [
        workload(f"w{n}", id=n, observed=SEVERED_FROZEN, desired=SEVERED_FROZEN, incident=f"inc-{n}")
        for n in range(1, 8)
    ]
    house.watched = [workload("fine"), *cut]
    told = call("status").stdout
    assert "w1 severed+frozen (inc-1), " in told
    assert "and 2 more: killswitch workloads" in told
    assert "fine" not in told


@pytest.mark.parametrize(
    ("proof", "code", "why"),
    [
        (Proof(NOW - 60, True, True, "", NOW - 60, NOW, 3600), 0, ""),
        (Proof(NOW - 60, False, True, "still: 3 ns"), 1, "no proof stands: still: 3 ns"),
        (Proof(NOW - 9e4, True, False, "", NOW - 9e4, NOW, 3600), 1, "no proof stands: it is too old"),
        (Proof(), 1, "no proof stands: there was none yet"),
    ],
)
def test_the_last_one_can_be_asked_for(house: House, call: Call, proof: Proof, code: int, why: str) -> None:
    house.proof = proof
    done = call("selftest", "--last", "-o", "json")
    assert done.exit_code == code
    assert json.loads(done.stdout)["stands"] is (code == 0)
    assert why in done.stderr
    assert house.told == []  # nothing was ordered
    assert call("selftest", "--last").stdout.strip() == proof_line(proof, time.time()).plain
