"""``on: finding`` as it is written: what is refused, what its own tests say, and which findings add up."""

# ruff: noqa: E501 - messages are compared whole

from __future__ import annotations

import pytest

from killswitch.errors import PolicyError
from killswitch.policy.check import check_text
from killswitch.policy.compile import compile_policies
from killswitch.policy.correlation import MAX_SOURCES, Memory, correlations, without_sums
from killswitch.policy.explain import explain
from killswitch.policy.load import load_text
from killswitch.policy.model import And, Expr, FoundBefore, Not, Or, Predicate
from killswitch.policy.sums import COUNTED, Source

POLICY = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {name: test, version: 1}
workloads:
  - cgroup: /test/**
mode: enforce
rules:
  - id: by-name
    title: A name
    level: medium
    act: mining
    evidence: name
    on: exec
    match:
      name: {process.name: odd}
    condition: name
    response: [alert]
  - id: two
    title: Two agree
    level: high
    on: finding
    match:
      mining: {finding.act: mining}
      agree: {finding.kinds|gte: 2}
    condition: mining and agree
    timespan: 10m
    response: [sever]
    tests:
      - findings: [{rule: by-name}, {act: mining, evidence: wire, after: 10m}]
        expect: match
      - findings: [{rule: by-name}, {act: mining, evidence: name}, {act: tunnel, evidence: wire}]
        expect: no_match
"""


def problems(text: str) -> list[str]:
    return [str(p) for p in check_text(text, "p.yaml")]


def test_it_is_loaded_whole_and_holds_its_tests() -> None:
    assert problems(POLICY) == []
    rule = load_text(POLICY, "p.yaml").rules[1]
    assert (rule.on, rule.timespan_ns, rule.act, rule.evidence) == ("finding", 600 * 10**9, None, None)
    assert rule.tests[0].findings == (
        FoundBefore(0, rule="by-name"),
        FoundBefore(600 * 10**9, act="mining", evidence="wire"),
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    timespan: 10m\n", "", "18:5: a rule that asks for 'finding.kinds' needs the key 'timespan' (say over how long they add up, as in timespan: 10m)"),
        ("timespan: 10m", "timespan: 10", "26:15: 'timespan' must be a duration, as in 20s, 5m or 1h500ms, found '10'"),
        ("timespan: 10m", "for: 10m\n    timespan: 10m", "26:10: 'for' has no sense with 'on: finding', which happens in an instant (how far back findings add up is 'timespan')"),
        ("    condition: name\n", "    condition: name\n    timespan: 5m\n", "17:15: 'timespan' has no sense with 'on: exec' (findings add up with 'on: finding')"),
        ("finding.kinds|gte: 2", "finding.evidence: name", "26:15: 'timespan' changes nothing: the condition adds nothing up (ask for one of finding.kinds, finding.rules, finding.count, finding.acts, or remove 'timespan')"),
        ("finding.kinds|gte: 2", "finding.kinds|gte: 5", "24:34: 'finding.kinds' lies between 0 and 4, found 5"),
        ("finding.kinds|gte: 2", "finding.count|gte: 1000", "24:34: 'finding.count' lies between 0 and 256, found 1000"),
        ("finding.act: mining", "finding.act: minning", "23:29: 'minning' is never a 'finding.act' (did you mean 'mining'?)"),
        ("    level: high\n", "    level: high\n    act: mining\n", "21:10: 'act' has no sense with 'on: finding': the findings say it (remove it, or ask for 'finding.act')"),
        ("response: [sever]", "response: [kill_process]", "27:16: 'kill_process' has no sense with 'on: finding': a sum is no process's (use freeze or terminate, or put kill_process into the rules that find it)"),
        ("- findings: [{rule: by-name}, {act: mining, evidence: name}, {act: tunnel, evidence: wire}]", "- event: {}", "31:16: a test of 'on: finding' has no 'event' (give 'findings')"),
        ("{rule: by-name}, {act: mining, evidence: wire, after: 10m}", "{rule: by-name}", "29:9: test of rule 'two' fails: the rule does not match the last of 1 findings, expected match"),
        ("evidence: wire, after: 10m", "evidence: wire, after: 11m", "29:9: test of rule 'two' fails: the rule does not match the last of 2 findings, expected match"),
        ("{act: mining, evidence: name}, {act: tunnel", "{act: mining, evidence: wire}, {act: mining", "31:9: test of rule 'two' fails: the rule matches the last of 3 findings, expected no_match"),
    ],
)  # fmt: skip
def test_each_slip_has_its_place_cause_and_mend(old: str, new: str, said: str) -> None:
    assert POLICY.count(old) == 1
    assert f"p.yaml:{said}" in problems(POLICY.replace(old, new))


def test_findings_belong_to_tests_of_findings_alone() -> None:
    text = POLICY.replace(
        "    condition: name\n    response: [alert]\n",
        "    condition: name\n    response: [alert]\n    tests: [{findings: [{rule: two}], expect: match}]\n",
    )
    assert problems(text) == ["p.yaml:18:24: a test of 'on: exec' has no 'findings' (give 'event')"]


def test_explain_says_where_sums_are_judged() -> None:
    policy = load_text(POLICY, "p.yaml")
    explained = explain([policy])
    two = explained.rules[1]
    assert (two.tier, two.why) == (4, "findings of the workload are added up over time")
    assert (two.states, two.clauses, two.in_kernel) == (1, 0, ())
    assert two.condition == "finding.act is mining and finding.kinds >= 2"


A, B = Predicate("finding.act", "match", ("mining",)), Predicate("finding.level", "match", ("high",))
MANY = Predicate("finding.count", "gte", (3,))


@pytest.mark.parametrize(
    ("expr", "rest"),
    [
        (A, A),
        (MANY, None),
        (And((A, MANY)), And((A,))),
        (And((A, Not(MANY))), And((A,))),
        (Or((A, MANY)), None),  # what only has to be many is everything
        (Or((And((A, MANY)), And((B, MANY)))), Or((And((A,)), And((B,))))),
        (Not(And((B, MANY))), Not(And((B,)))),
    ],
)
def test_the_condition_without_its_sums(expr: Expr, rest: Expr | None) -> None:
    assert without_sums(expr) == rest


def source(rule: str = "r", mode: str = "enforce") -> Source:
    return Source("test", rule, "mining", "name", "high", mode)


def test_a_rule_that_enforces_does_not_sum_what_only_monitors() -> None:
    (two,) = correlations(compile_policies([load_text(POLICY, "p.yaml")]))
    assert two.adds(source()) and not two.adds(source(mode="monitor"))
    (trying,) = correlations(compile_policies([load_text(POLICY.replace("mode: enforce", "mode: monitor"), "p.yaml")]))
    assert trying.adds(source()) and trying.adds(source(mode="monitor"))


def test_memory_counts_within_the_time_and_forgets_the_longest_quiet() -> None:
    memory = Memory()
    for at in (1, 5, 9, 7):  # the last came late
        memory.note(source(), at)
    assert memory.since(5) == [(source(), 3)]
    assert memory.since(10) == []
    memory.lasts(("test", "r"), 20)
    assert memory.since(10) == [(source(), 1)]
    memory.lasts(("test", "nobody"), 20)
    for n in range(2 * COUNTED):
        memory.note(source(), 20 + n)
    assert memory.since(0) == [(source(), COUNTED)]
    for n in range(MAX_SOURCES):
        memory.note(source(f"r{n}"), 0)
    assert len(memory.since(0)) == MAX_SOURCES
    assert source() not in dict(memory.since(0))


def test_a_policy_with_a_rule_that_cannot_be_compiled_says_so() -> None:
    with pytest.raises(PolicyError, match=r"'finding\.kinds' must be a whole number"):
        load_text(POLICY.replace("gte: 2}", "gte: two}"), "p.yaml")
