"""Findings of a workload add up: scripts of events, and what two weak signs together bring about."""

from __future__ import annotations

import pytest

from killswitch.commands import Act, Contain, Containment, Finding, Mode, RecordFinding
from killswitch.engine import Engine
from killswitch.events import Event, Released, WorkloadAdded
from killswitch.policy.compile import compile_policies
from killswitch.policy.load import load_text
from tests.unit.detect.scenes import (
    CGROUP,
    HEAD,
    WORKLOAD,
    S,
    Scene,
    code,
    compiled,
    connect,
    cpu,
    ex,
    findings,
    kinds,
    tick,
)

BOTH = Containment(severed=True, frozen=True)


def weak(rule: str, act: str, evidence: str, name: str, level: str = "medium") -> str:
    return f"""\
  - id: {rule}
    title: Weak sign
    level: {level}
    act: {act}
    evidence: {evidence}
    on: exec
    match:
      name: {{process.name: {name}}}
    condition: name
    response: [alert]
"""


def sums(condition: str = "mining and agree", *, rule: str = "two", response: str = "[sever, freeze, capture]") -> str:
    return f"""\
  - id: {rule}
    title: Signs agree
    level: critical
    on: finding
    match:
      mining: {{finding.act: mining}}
      agree: {{finding.kinds|gte: 2}}
      both: {{finding.rule: [by-name, by-args]}}
      rules: {{finding.rules|gte: 2}}
      many: {{finding.count|gte: 3}}
      acts: {{finding.acts|gte: 2}}
      grave: {{finding.level: [medium, high, critical]}}
    condition: {condition}
    timespan: 10m
    response: {response}
"""


NAME = weak("by-name", "mining", "name", "odd")
NAME_TOO = weak("by-name-too", "mining", "name", "odder")
ARGS = weak("by-args", "mining", "arguments", "argued")
LOW = weak("low", "mining", "wire", "lowly", level="low")
TUNNEL = weak("tunnel", "tunnel", "wire", "tunneller")
HASHING = """\
  - id: hashing
    title: Sustained hashing load
    level: medium
    act: mining
    evidence: behaviour
    on: cpu
    match:
      hashing: {cpu.hashing|gte: 0.7}
    condition: hashing
    for: 10s
    response: [alert]
"""


def only(text: str) -> str:
    """The rule without the groups that its condition does not use: an unused group is an error."""
    condition = next(line for line in text.splitlines() if "condition:" in line).split(":")[1].split()
    return "".join(
        line + "\n"
        for line in text.splitlines()
        if not line.startswith("      ") or line.split(":")[0].strip() in condition
    )


TWO = only(sums())


def odd(at_s: float = 0, name: str = "odd", pid: int = 10) -> Event:
    return ex(f"/tmp/{name}", at=int(at_s * S), pid=pid)


def found(commands: list[object]) -> list[str]:
    return [c.finding.rule for c in commands if isinstance(c, RecordFinding)]


def test_two_kinds_contain_and_say_what_they_rest_on() -> None:
    scene = Scene(NAME, ARGS, TWO)
    assert kinds(scene.play(odd())) == ["RecordFinding"]
    out = scene.play(odd(30, "argued", pid=11))
    assert kinds(out) == ["RecordFinding", "RecordFinding", "Contain"]
    sign, summed = findings(out)
    assert (sign.rule, summed.rule, summed.act, summed.evidence) == ("by-args", "two", Act.MINING, None)
    assert summed.summary.startswith("mining by arguments and name, in 30.0 s: by-name (")
    assert "odd(10)" in summed.summary and "argued(11)" in summed.summary
    assert (summed.pid, summed.time_ns, summed.workload) == (11, 30 * S, WORKLOAD)
    (contain,) = [c for c in out if isinstance(c, Contain)]
    assert (contain.desired, contain.capture, contain.incident) == (BOTH, True, "inc-1")
    assert contain.reason.startswith("test/two: mining by")


def test_one_event_may_show_both() -> None:
    both = NAME.replace("odd", "argued")
    assert kinds(Scene(both, ARGS, TWO).play(odd(0, "argued")))[-1] == "Contain"


@pytest.mark.parametrize(
    "events",
    [
        [odd(0), odd(1), odd(2, pid=11)],
        [odd(0), odd(1, "odder")],  # two rules, one kind
        [odd(0), odd(1, "tunneller")],  # two kinds, two acts
        [odd(0), odd(600.1, "argued")],  # too long ago
        [odd(0), Released(S, WORKLOAD), odd(2, "argued")],
        [odd(0), WorkloadAdded(1, 78, "other", "/killswitch/other", (0,)), ex("/tmp/argued", workload=78, at=S)],
    ],
)
def test_what_is_not_two_kinds_contains_nothing(events: list[Event]) -> None:
    out = Scene(NAME, NAME_TOO, ARGS, TUNNEL, TWO).play(*events)
    assert "two" not in found(list(out)) and "Contain" not in kinds(out)


def test_the_latest_time_of_a_sign_counts() -> None:
    scene = Scene(NAME, ARGS, TWO)
    assert "Contain" in kinds(scene.play(odd(0), odd(500), odd(1000, "argued")))


@pytest.mark.parametrize(
    ("condition", "names", "matches"),
    [
        ("both and rules", ["odd", "argued"], True),
        ("both and rules", ["odd", "odder"], False),
        ("mining and many", ["odd", "odd", "odd"], True),
        ("mining and many", ["odd", "odd", "tunneller"], False),
        ("mining and many", ["odd", "odd"], False),
        ("acts", ["odd", "tunneller"], True),
        ("acts", ["odd", "argued"], False),
        ("mining and agree and grave", ["odd", "lowly"], False),  # what does not fit the rest does not add up
        ("mining and agree and grave", ["lowly", "odd"], False),
        ("mining and agree", ["odd", "lowly"], True),
        ("mining and not agree", ["odd"], True),
        ("agree or many", ["odd", "lowly"], True),
    ],
)
def test_which_findings_add_up_and_how(condition: str, names: list[str], matches: bool) -> None:
    scene = Scene(NAME, NAME_TOO, ARGS, LOW, TUNNEL, only(sums(condition)))
    for n, name in enumerate(names[:-1]):
        scene.play(odd(n, name, pid=20 + n))
    assert ("two" in found(list(scene.play(odd(9, names[-1], pid=40))))) is matches


def test_repeats_that_are_not_shown_count_all_the_same() -> None:
    scene = Scene(NAME, only(sums("mining and many")))
    out = scene.play(odd(0), odd(0.1), odd(0.2))
    assert found(list(out)) == ["by-name", "two"] and "Contain" in kinds(out)


def test_a_sum_never_feeds_a_sum() -> None:
    escalate = only(sums("grave and many", rule="more", response="[terminate]")).replace("gte: 3", "gte: 2")
    assert found(list(Scene(NAME, only(sums("mining")).replace("    timespan: 10m\n", ""), escalate).play(odd()))) == [
        "by-name", "two",
    ]  # fmt: skip


def policies(*given: tuple[str, str, str]) -> Engine:
    """An engine with a policy for each (name, mode, rules), all of which watch the workload."""
    loaded = [load_text(HEAD.format(name=name, mode=mode) + rules, f"{name}.yaml") for name, mode, rules in given]
    engine = Engine(compile_policies(loaded))
    engine.handle(WorkloadAdded(0, WORKLOAD, "job", CGROUP, tuple(range(len(loaded)))))
    return engine


def test_policies_add_up_together_but_what_is_tried_out_stops_no_work() -> None:
    for mode, stopped in (("enforce", True), ("monitor", False)):
        engine = policies(("a", "enforce", NAME + TWO), ("b", mode, ARGS))
        out = [c for e in (odd(0), odd(1, "argued")) for c in engine.handle(e)]
        assert ("Contain" in kinds(out)) is stopped
        assert ("two" in found(list(out))) is stopped


def test_a_rule_that_monitors_sums_what_is_enforced_and_what_is_monitored() -> None:
    engine = policies(("a", "enforce", NAME), ("b", "monitor", ARGS + TWO))
    out = [c for e in (odd(0), odd(1, "argued")) for c in engine.handle(e)]
    assert kinds(out) == ["RecordFinding"] * 3
    assert findings(out)[-1].mode is Mode.MONITOR


def test_a_policy_that_does_not_watch_the_workload_sums_nothing_of_it() -> None:
    engine = policies(("a", "enforce", NAME + ARGS), ("b", "enforce", TWO))
    engine.handle(WorkloadAdded(0, WORKLOAD, "job", CGROUP, (0,)))
    out = [c for e in (odd(0), odd(1, "argued")) for c in engine.handle(e)]
    assert "two" not in found(list(out))


def hashing(scene: Scene, start: int, end: int) -> list[Finding]:
    out = []
    for second in range(start, end):
        out += scene.play(cpu(second))
        if second % 4 == 0:
            scene.play(code(second))
    return findings(out)


def test_a_load_that_goes_on_does_not_grow_old() -> None:
    scene = Scene(HASHING, ARGS, TWO)
    assert [f.rule for f in hashing(scene, 1, 1200)] == ["hashing"]  # one finding of one episode
    out = scene.play(odd(1200, "argued", pid=11))
    assert kinds(out)[-1] == "Contain"
    assert "arguments and behaviour" in findings(out)[-1].summary


def test_a_load_that_ended_grows_old() -> None:
    scene = Scene(HASHING, ARGS, TWO)
    assert hashing(scene, 1, 60)
    assert "Contain" not in kinds(scene.play(odd(700, "argued", pid=11)))


# --- reloads and restarts ----------------------------------------------------------------------------------------------


def test_after_a_reload_what_was_seen_counts_by_the_rules_of_now() -> None:
    scene = Scene(NAME, ARGS)
    assert "Contain" not in kinds(scene.play(odd(0), odd(1, "argued")))
    scene.engine.reload(compiled(NAME, ARGS, TWO))
    out = scene.play(tick(5))
    assert found(list(out)) == ["two"] and kinds(out)[-1] == "Contain"
    assert scene.play(tick(6)) == []
    scene.engine.reload(compiled(NAME, ARGS, TWO))
    assert scene.play(tick(7)) == []  # told already, and it asks for nothing new


def test_a_rule_that_is_not_loaded_any_more_adds_nothing_new() -> None:
    scene = Scene(NAME, ARGS, TWO)
    scene.play(odd(0))
    scene.engine.reload(compiled(ARGS, TWO))
    out = scene.play(odd(1, "argued"))
    assert found(list(out)) == ["by-args"]


def test_another_daemon_goes_on_with_what_was_found() -> None:
    before = Scene(NAME, ARGS, TWO)
    seen = findings(before.play(odd(0)))
    after = Scene(NAME, ARGS, TWO)
    after.engine.workloads.adopt(WORKLOAD, Containment(), incident="inc-1")
    after.engine.recall(WORKLOAD, seen)
    assert after.play(tick(2)) == []
    out = after.play(odd(60, "argued"))
    assert found(list(out)) == ["by-args", "two"] and kinds(out)[-1] == "Contain"


def test_another_daemon_judges_what_the_last_one_had_no_time_for_and_repeats_nothing() -> None:
    before = Scene(NAME, ARGS, TWO)
    whole = findings(before.play(odd(0), odd(1, "argued")))
    assert [f.rule for f in whole] == ["by-name", "by-args", "two"]
    for seen, again in ((whole, []), (whole[:2], ["two"])):
        after = Scene(NAME, ARGS, TWO)
        after.engine.recall(WORKLOAD, seen)
        assert found(list(after.play(tick(2)))) == again
        assert after.play(tick(3)) == []


def test_memory_is_bounded_whatever_is_found() -> None:
    scene = Scene(
        NAME, only(sums("mining and many")), "".join(weak(f"r{n}", "tunnel", "wire", f"t{n}") for n in range(50))
    )
    for n in range(20_000):
        scene.play(odd(n / 1000, pid=10 + n % 5))
    scene.play(*(connect("10.0.0.1", at=30 * S) for _ in range(10)))
    (workload,) = scene.engine.workloads
    (source, count), *rest = workload.shown.memory.since(0)
    assert (source.rule, count, rest) == ("by-name", 256, [])
    assert len(workload.shown.latest) == 1
