"""The budget of automatic kills, as an account and in the engine."""

from __future__ import annotations

from dataclasses import replace

from killswitch.commands import FREE, Command, Contain, Containment, KillProcess, Mode, RecordFinding
from killswitch.detect.budget import Budget
from killswitch.engine import Engine
from killswitch.events import Done, Lost, Released, Unattended, WorkloadAdded
from killswitch.policy.compile import compile_policies
from killswitch.policy.limits import Limits
from killswitch.policy.load import load_text
from tests.unit.detect.scenes import HEAD, MINER, PROBE, S, Scene, compiled, ex, findings, kinds, tick

MINUTE = 60 * S


def account(contained: int = 2, share: float = 0.0, per: int = 10 * MINUTE) -> Budget:
    return Budget(Limits(contained, per, share))


def test_so_many_and_no_more_until_the_first_has_grown_old() -> None:
    b = account(2)
    assert [b.take(f"/{n}", n * S, 100) for n in range(4)] == [True, True, False, False]
    assert b.take("/0", 5 * S, 100), "who was hit is hit again"
    assert list(b.withheld(6 * S)) == ["/2", "/3"]
    assert b.room_ns(6 * S, 100) == 10 * MINUTE - 6 * S
    assert not b.take("/2", 10 * MINUTE - 1, 100)
    assert b.take("/2", 10 * MINUTE, 100), "the first was at 0"
    assert not b.take("/3", 10 * MINUTE, 100)
    assert list(b.charged(10 * MINUTE)) == ["/1", "/2"]


def test_thirty_of_thirty_are_stopped_and_not_all_of_a_hundred() -> None:
    defaults = Budget(Limits())
    assert all(defaults.take(f"/{n}", n, 30) for n in range(30))
    defaults = Budget(Limits())
    assert sum(defaults.take(f"/{n}", n, 100) for n in range(100)) == 50


def test_a_workload_counts_once_however_often_it_is_hit_and_a_release_gives_it_back() -> None:
    b = account(1)
    for n in range(5):
        assert b.take("/a", n, 9)
    assert not b.take("/b", 6, 9)
    before = b.changes
    b.refund("/a")
    assert b.changes > before and b.take("/b", 7, 9) and not b.withheld(7)


def test_what_others_have_done_is_charged_beyond_the_budget_and_a_reset_forgets_it_all() -> None:
    b = account(1)
    for name in ("/a", "/b", "/c"):
        b.charge(name, 1)
    assert b.left(1, 9) == 0 and b.room_ns(1, 9) == 10 * MINUTE
    assert b.take("/c", 2, 9) and not b.take("/d", 2, 9)
    b.reset()
    assert b.take("/d", 3, 9)


def test_no_budget_at_all() -> None:
    b = Budget()
    assert all(b.take(f"/{n}", n, 1000) for n in range(1000)) and b.room_ns(1000, 1000) == 0


# --- in the engine ----------------------------------------------------------------------------------------------------


class Fleet(Scene):
    """Many workloads, numbered from 1, and a budget."""

    def __init__(self, budget: Budget, count: int, *rules: str) -> None:
        self.engine = Engine(compiled(*rules or (MINER, PROBE)), budget=budget)
        for n in range(1, count + 1):
            self.add(n, f"/killswitch/w{n}")

    def rogue(self, n: int, *, at: int = 0, done: Done = Done.NOTHING) -> list[Command]:
        return self.play(ex("/tmp/xmrig", pid=100 + n, workload=n, at=at, done=done))


def test_past_the_budget_rules_only_monitor_and_say_so() -> None:
    fleet = Fleet(account(2), 9)
    assert [kinds(fleet.rogue(n, at=n * S)) for n in (1, 2)] == [["RecordFinding", "KillProcess", "Contain"]] * 2
    out = fleet.rogue(3, at=3 * S)
    assert kinds(out) == ["RecordFinding", "RecordFinding"]
    found, told = findings(out)
    assert (found.rule, found.mode) == ("miner", Mode.MONITOR)
    assert (told.policy, told.rule, told.level) == ("built-in", "kill-withheld", "critical")
    assert "rules have hit 2 of 9 workloads in the last 600 s, and 2 are allowed" in told.summary
    assert "act again in 598 s" in told.summary
    assert fleet.engine.workloads[3].containment == FREE
    assert isinstance(out[1], RecordFinding) and out[1].incident, "the incident of the workload says it"


def test_it_does_it_again_when_there_is_room_and_is_contained() -> None:
    fleet = Fleet(account(1), 9)
    fleet.rogue(1)
    assert "Contain" not in kinds(fleet.rogue(2, at=S))
    assert "Contain" not in kinds(fleet.rogue(2, at=9 * MINUTE))
    assert kinds(fleet.rogue(2, at=10 * MINUTE))[-2:] == ["KillProcess", "Contain"]


def test_who_was_hit_or_is_contained_by_an_operator_is_acted_on_whatever_is_left() -> None:
    fleet = Fleet(account(1), 9)
    fleet.rogue(1)
    assert kinds(fleet.rogue(1, at=S // 2)) == ["KillProcess"], "contained already, and folded"
    fleet.engine.workloads.adopt(2, Containment(severed=True))
    assert kinds(fleet.rogue(2, at=2 * S)) == ["RecordFinding", "KillProcess", "Contain"]
    assert "Contain" not in kinds(fleet.rogue(3, at=2 * S)), "and an order costs nothing of the budget"


def test_what_the_kernel_did_is_charged_and_gone_on_with() -> None:
    fleet = Fleet(account(1), 9)
    assert kinds(fleet.rogue(1, done=Done.KILLED | Done.SEVERED)) == ["RecordFinding", "Contain"]
    assert kinds(fleet.rogue(2, at=S, done=Done.KILLED)) == ["RecordFinding", "Contain"], "it was before us"
    assert "Contain" not in kinds(fleet.rogue(3, at=2 * S))


def test_a_workload_that_is_released_and_does_it_again_is_contained_again_at_once() -> None:
    fleet = Fleet(account(1), 9)
    fleet.rogue(1)
    fleet.engine.budget.refund("/killswitch/w1")
    fleet.play(Released(S, 1))
    assert kinds(fleet.rogue(1, at=S + 1)) == ["RecordFinding", "KillProcess", "Contain"]


def test_alerts_cost_nothing_and_the_dead_mans_switch_is_no_rule() -> None:
    fleet = Fleet(account(0), 9)
    assert kinds(fleet.play(Unattended(S, 1, 3000, True))) == ["RecordFinding", "Contain"]
    assert fleet.engine.budget.left(S, 9) == 0 and not fleet.engine.budget.charged(S)
    assert "Contain" not in kinds(fleet.rogue(2, at=2 * S)), "none at all are allowed"


def test_a_fleet_wide_mistake_is_told_of_once_a_workload() -> None:
    fleet = Fleet(account(5, share=0.25), 100)
    out = [c for n in range(1, 101) for c in (*fleet.rogue(n, at=n * S // 100), *fleet.rogue(n, at=n * S // 100 + 1))]
    assert sum(isinstance(c, Contain) for c in out) == 25
    assert {c.workload for c in out if isinstance(c, KillProcess)} == set(range(1, 26))
    withheld = [f for f in findings(out) if f.rule == "kill-withheld"]
    assert {f.workload for f in withheld} == set(range(26, 101)) and len(withheld) == 75
    fleet.play(tick(5))


# --- floods -----------------------------------------------------------------------------------------------------------


def flood(count: int = 500, at: int = S) -> Lost:
    return Lost(at, 1, "flows_flooded", count)


def test_who_floods_is_told_of_and_by_the_policys_word_cut_off() -> None:
    (found,) = findings(Fleet(Budget(), 2).play(flood()))
    assert (found.rule, found.level) == ("flood", "high")
    assert "500 forks, exits and connections more than can be read were left out" in found.summary
    strict = HEAD.format(name="test", mode="enforce").replace("rules:", "on_flood: freeze\nrules:") + MINER
    engine = Engine(compile_policies([load_text(strict, "test.yaml")]), budget=account(1))
    for n in (1, 2):
        engine.handle(WorkloadAdded(0, n, f"w{n}", f"/killswitch/w{n}", (0,)))
    (_, contain) = engine.handle(flood())
    assert isinstance(contain, Contain) and contain.desired == Containment(True, True) and contain.capture
    assert "Contain" not in kinds(engine.handle(replace(flood(), workload=2))), "it counts like any other"
