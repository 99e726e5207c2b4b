"""``hold: matched``: about which programs a rule is open, as clauses over the bits that the kernel computes."""

from __future__ import annotations

from dataclasses import replace

from killswitch.commands import MAX_CLAUSES
from killswitch.events import Exec
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.inline import build_event
from killswitch.policy.load import load_text

HEAD = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {{name: {name}, version: 1}}
workloads: [{{cgroup: /x}}]
mode: {mode}
rules:
"""
RULE = (
    "  - {{id: {id}, title: r, level: low, on: exec, match: {match}, condition: {condition}, response: [{response}]}}\n"
)


def rule(match: str, condition: str = "a", response: str = "kill_process", *, id: str = "r") -> str:
    return RULE.format(id=id, match=match, condition=condition, response=response)


def compiled(*rules: str, mode: str = "enforce") -> Compiled:
    return compile_policies([load_text(HEAD.format(name="p", mode=mode) + "".join(rules), "p.yaml")])


def is_open(policy: Compiled, executable: str, *arguments: str, cut: int = 0) -> bool:
    event, _ = build_event("exec", {"process.executable": executable, "process.args": [executable, *arguments]})
    assert isinstance(event, Exec)
    bits = policy.predicates(replace(event, argv_total=len(event.argv) + cut))
    return any(bits & c.mask == c.value for c in policy.tables.hold_clauses)


ROOTS = "{a: {process.name: tool}, b: {user.id: 0}}"
HASHED = "{{a: {{process.name: tool}}, b: {{file.hash.sha256: {}}}}}".format("ab" * 32)


def test_a_rule_is_open_about_what_the_half_of_it_matches_that_the_kernel_judges() -> None:
    policy = compiled(rule(ROOTS, "a and b"))
    assert is_open(policy, "/bin/tool")
    assert not is_open(policy, "/bin/other")
    assert is_open(policy, "/bin/other", "x" * 9, cut=1), "what is cut is never innocent"


def test_a_rule_that_asks_for_a_file_is_open_about_everything() -> None:
    policy = compiled(rule(HASHED, "a and b"), rule("{a: {user.id: 0}}", id="s"))
    assert is_open(policy, "/bin/other")
    assert len(policy.tables.hold_clauses) == 1


def test_what_the_kernel_decides_and_does_by_itself_is_not_open() -> None:
    assert compiled(rule("{a: {process.name: tool}}")).tables.hold_clauses == ()


def test_what_the_kernel_decides_and_the_daemon_does_is_open() -> None:
    policy = compiled(rule("{a: {process.name: tool}}", response="freeze"))
    assert is_open(policy, "/bin/tool")
    assert not is_open(policy, "/bin/other")


def test_who_only_alerts_or_monitors_holds_nobody() -> None:
    assert compiled(rule(ROOTS, "a and b", "alert")).tables.hold_clauses == ()
    assert compiled(rule(ROOTS, "a and b"), mode="monitor").tables.hold_clauses == ()


def test_an_ssh_client_is_open_because_its_configuration_may_forward() -> None:
    policy = compiled(rule("{a: {ssh.forward: remote}}"))
    assert is_open(policy, "/usr/bin/ssh", "host")
    assert not is_open(policy, "/usr/bin/curl", "host")


def test_where_the_clauses_do_not_fit_everything_is_open() -> None:
    names = [f"{{a: {{process.name: n{n}}}, b: {{user.id: 0}}}}" for n in range(150)]
    firsts = [rule(f"{{a: {{process.name: k{n}}}}}", id=f"k{n}") for n in range(120)]
    policy = compiled(*firsts, *(rule(match, "a and b", id=f"r{n}") for n, match in enumerate(names[:130])))
    tables = policy.tables
    assert len(tables.clauses) + len(tables.hold_clauses) <= MAX_CLAUSES
    assert [c.mask for c in tables.hold_clauses] == [0]
    assert is_open(policy, "/bin/other")
