"""What an outcome is worth: by hand-made outcomes, each of which is one way that a case can end."""

from __future__ import annotations

import dataclasses
import json

from benchmarks.eval import score
from benchmarks.eval.model import Case
from benchmarks.eval.outcome import Found, Outcome

SEVERS = ("kill_process", "sever", "freeze")


def found(evidence: str = "wire", *, responses: tuple[str, ...] = SEVERS, after: float = 1.0, rule: str = "r") -> Found:
    return Found(rule, "high", evidence, "mining", responses, after, 500.0)


def rogue(case: str = "m", *findings: Found, **changes: object) -> Outcome:
    contained = "severed+frozen" if any("sever" in f.responses for f in findings) else "free"
    base = Outcome(case, True, "mining", contained=contained, found=findings)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def worker(case: str = "i", *findings: Found, **changes: object) -> Outcome:
    return dataclasses.replace(Outcome(case, False, "build", status=0, found=findings), **changes)  # type: ignore[arg-type]


def case(name: str, *, malicious: bool = True, evidence: tuple[str, ...] = (), status: int = 0) -> Case:
    return Case(name, malicious, "mining" if malicious else "build", "t", "true", evidence=evidence, status=status)


def test_contained_denied_killed_escaped() -> None:
    assert rogue("m", found()).stopped == "severed+frozen"
    assert rogue("m", found(responses=("deny",))).stopped == "denied"
    assert rogue("m", found(responses=("kill_process",))).stopped == "killed"
    assert rogue("m", found(responses=())).stopped == ""
    assert rogue("m").stopped == ""


def test_a_denial_that_let_something_out_is_none() -> None:
    assert rogue("m", found(responses=("deny",)), bytes_left=1).stopped == ""
    assert rogue("m", found(responses=("deny",)), goal_reached=True).stopped == ""
    assert rogue("m", found(), bytes_left=5000, goal_reached=True).good()


def test_bytes_after_the_cut_are_an_escape() -> None:
    assert not rogue("m", found(), bytes_after_cut=1).good()


def test_what_could_not_be_run_is_good_for_nothing() -> None:
    assert not rogue("m", found(), error="no sshd").good()
    assert not worker(error="no compiler").good()


def test_harm_is_told_by_its_worst() -> None:
    assert worker().harm() == ""
    assert worker("i", found(responses=())).harm() == ""
    assert worker("i", found(responses=("deny",))).harm() == "denied"
    assert worker("i", found(responses=("kill_process",)), status=-9).harm() == "killed"
    assert worker("i", found(), contained="severed+frozen", status=None).harm() == "severed"
    assert worker(contained="severed").harm() == "severed"


def test_an_innocent_has_to_succeed_in_its_work() -> None:
    assert worker(status=1).harm() == "broken"
    assert worker(status=1).harm(status=1) == ""
    assert worker(output_missing=("OK",)).harm() == "broken"
    assert worker(status=None).harm() == "broken"


def test_caught_counts_times_and_bytes_of_what_was_stopped() -> None:
    outcomes = [
        rogue("a", found(after=0.5), bytes_left=10),
        rogue("b", found(after=1.5), bytes_left=0),
        rogue("c", found(responses=("deny",), after=2.5)),
        rogue("d", bytes_left=9_999_999),
        worker(),
    ]
    c = score.caught(outcomes)
    assert (c.cases, c.contained, c.denied, c.escaped, c.silent) == (4, 2, 1, ("d",), 2)
    assert c.recall == 0.75
    assert c.bytes_max == 10
    assert c.verdict_p50_s is not None and abs(c.verdict_p50_s - 1.5005) < 1e-9
    assert c.verdict_p99_s is not None and abs(c.verdict_p99_s - 2.5005) < 1e-9


def test_time_to_verdict_is_that_of_the_first_that_acted() -> None:
    outcome = rogue("m", found(responses=(), after=0.1), found(after=3.0), found(after=2.0))
    assert outcome.verdict_s is not None and abs(outcome.verdict_s - 2.0005) < 1e-9
    assert rogue("m", found(responses=())).verdict_s is None


def test_each_kind_of_evidence_alone() -> None:
    outcomes = [
        rogue("both", found("wire"), found("behaviour", after=9)),
        rogue("wire-only", found("wire"), found("name", responses=())),
        rogue("none"),
    ]
    cases = [
        case("both", evidence=("wire",)),
        case("wire-only", evidence=("wire", "name")),
        case("none", evidence=("name",)),
    ]
    rows = {row.evidence: row for row in score.alone(outcomes, cases)}
    assert (rows["wire"].acts, rows["wire"].only, rows["wire"].missed) == (2, ("wire-only",), ())
    assert (rows["behaviour"].acts, rows["behaviour"].only) == (1, ())
    assert (rows["name"].acts, rows["name"].alerts, rows["name"].missed) == (0, 1, ("wire-only", "none"))


def test_alerts_on_innocents_are_noise_by_rule() -> None:
    outcomes = [
        worker("a", found(responses=(), rule="x"), found(responses=(), rule="x"), found(responses=(), rule="y")),
        worker("b", found(responses=(), rule="x")),
        worker("c", found(), contained="severed"),
    ]
    h = score.harm(outcomes, [case(c, malicious=False) for c in "abc"])
    assert (h.cases, h.harmed, h.severed, h.alerts) == (3, 1, ("c",), 4)
    assert h.noisy == (("x", 2), ("y", 1))


def test_the_weakest_are_those_that_came_nearest() -> None:
    outcomes = [
        rogue("quiet", found()),
        rogue("loud", found(), bytes_left=9),
        rogue("there", found(), goal_reached=True),
    ]
    assert [o.case for o in score.weakest(outcomes, 2)] == ["there", "loud"]


def test_passed_only_when_everything_ran_and_was_good() -> None:
    cases = [case("m"), case("i", malicious=False, status=3)]
    good = [rogue("m", found()), worker("i", status=3)]
    assert score.passed(good, cases)
    assert not score.passed(good[:1], cases)
    assert not score.passed([good[0], worker("i", status=0)], cases)
    assert not score.passed([rogue("m"), good[1]], cases)


def test_outcomes_survive_a_file() -> None:
    outcome = rogue("m", found(), questions=("a.example",), output_missing=("x",))
    assert Outcome.from_json(json.loads(json.dumps(outcome.as_json()))) == outcome
