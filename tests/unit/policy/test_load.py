"""Strict loading: all problems at once, each with its place, its cause and its mend."""

# ruff: noqa: E501 - messages are compared whole

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.commands import Act, Evidence, Level, Mode, Response
from killswitch.errors import PolicyError
from killswitch.policy import load, source
from killswitch.policy.model import And, Not, Or, Policy, Predicate, Rule
from killswitch.policy.schema import POLICY, Record

SHIPPED = Path(load.__file__).parent.parent / "policies" / "rogue-agent.yaml"

GOOD = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {name: test, version: 1}
workloads:
  - cgroup: /test/**
mode: enforce
lists:
  miners: [xmrig, minerd]
rules:
  - id: rule-1
    title: A rule
    level: high
    on: exec
    match:
      name: {process.name: $miners}
    condition: name
    response: [alert]
"""


def with_line(number: int, line: str) -> str:
    """GOOD with one line (from 1) replaced."""
    lines = GOOD.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


def group(text: str, on: str = "exec") -> str:
    """GOOD with the group of its rule on line 15 replaced."""
    return with_line(15, f"      name: {text}").replace("on: exec", f"on: {on}")


def problems(text: str) -> list[str]:
    try:
        load.load_text(text, "p.yaml")
    except PolicyError as error:
        return [str(p) for p in error.problems]
    return []


def predicate(text: str, on: str = "exec") -> object:
    return load.load_text(group(text, on), "p.yaml").rules[0].condition


def signed(act: str) -> str:
    """GOOD, its rule with these keys after its level."""
    return GOOD.replace("    level: high\n", f"    level: high\n{act}")


def test_what_a_rule_is_evidence_of() -> None:
    (rule,) = load.load_text(signed("    act: mining\n    evidence: name\n"), "p.yaml").rules
    assert (rule.act, rule.evidence) == (Act.MINING, Evidence.NAME)
    (silent,) = load.load_text(GOOD, "p.yaml").rules
    assert (silent.act, silent.evidence) == (None, None)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("    act: mining\n", "p.yaml:13:10: 'act' says half of it: the rule needs 'evidence' as well (one of name, arguments, wire, behaviour)"),
        ("    evidence: wire\n", "p.yaml:13:15: 'evidence' says half of it: the rule needs 'act' as well (one of mining, tunnel, probing, persistence, disguise, tampering)"),
        ("    act: minning\n    evidence: wire\n", "p.yaml:13:10: 'minning' is not an act (did you mean 'mining'?)"),
    ],
)  # fmt: skip
def test_half_of_a_sign_is_a_problem(keys: str, said: str) -> None:
    assert problems(signed(keys)) == [said]


def test_a_policy_is_loaded_whole() -> None:
    policy = load.load_text(SHIPPED.read_text(), "p.yaml")
    rules = {r.id: r for r in policy.rules}
    assert (policy.name, policy.version, policy.mode) == ("rogue-agent", 1, Mode.ENFORCE)
    assert policy.workloads == ("/killswitch/**", "/agents.slice/**")
    hashing = rules["sustained-hashing"]
    assert hashing.for_ns == 15_000_000_000
    assert hashing.level is Level.MEDIUM
    assert hashing.response == (Response.ALERT,)
    assert hashing.condition == And(
        (
            Or((Predicate("cpu.cores", "gte", (0.5,)), Predicate("cpu.hashing_seconds", "gte", (8.0,)))),
            Predicate("cpu.hashing", "gte", (0.7,)),
            Not(Predicate("file.inode_of", "match", ("/usr/bin/openssl", "/usr/bin/sort"))),
        )
    )
    assert rules["unlinked-exec"].condition == And(
        (Predicate("file.unlinked", "match", (True,)), Not(Predicate("file.memfd", "match", (True,))))
    )
    assert rules["miner-binary"].tests[0].event == {"process.executable": "/tmp/xmrig"}
    lines = SHIPPED.read_text().splitlines()
    for rule in policy.rules:
        assert f"id: {rule.id}" in lines[rule.line - 1]
        for test in rule.tests:
            assert lines[test.line - 1][test.column - 3 :].startswith("- ")


def test_groups_are_and_of_fields_and_or_of_mappings() -> None:
    two = "[{process.name: a, process.args|contains|all: [b, c]}, {user.id|gte: 1000}]"
    first = And(
        (Predicate("process.name", "match", ("a",)), Predicate("process.args", "contains", ("b", "c"), all=True))
    )
    assert predicate(two) == Or((first, Predicate("user.id", "gte", (1000,))))


@pytest.mark.parametrize(
    ("written", "on", "expected"),
    [
        ("{process.name: no}", "exec", Predicate("process.name", "match", ("no",))),
        ("{process.name: [on, 010, 22:22, 1_0, ~x]}", "exec",
         Predicate("process.name", "match", ("on", "010", "22:22", "1_0", "~x"))),
        ("{process.name: 'null'}", "exec", Predicate("process.name", "match", ("null",))),
        ("{process.args: ''}", "exec", Predicate("process.args", "match", ("",))),
        ("{process.args|startswith|cased: -R}", "exec", Predicate("process.args", "startswith", ("-R",), cased=True)),
        ("{process.name: [$miners, xmrig, other]}", "exec",
         Predicate("process.name", "match", ("xmrig", "minerd", "other"))),
        ("{process.args: '\\$HOME'}", "exec", Predicate("process.args", "match", ("$HOME",))),
        ("{process.args|re: '^a\\d+$'}", "exec", Predicate("process.args", "re", ("^a\\d+$",))),
        ("{file.memfd: true}", "exec", Predicate("file.memfd", "match", (True,))),
        ("{process.args|exists: false}", "exec", Predicate("process.args", "exists", (False,))),
        ("{destination.ip|cidr: [10.0.0.0/8, 'fd00::/8']}", "connect",
         Predicate("destination.ip", "cidr", ("10.0.0.0/8", "fd00::/8"))),
        ("{destination.ip: '2001:DB8::0:1'}", "connect", Predicate("destination.ip", "match", ("2001:db8::1",))),
        ("{cpu.cores|gt: 2}", "cpu", Predicate("cpu.cores", "gt", (2.0,))),
    ],
)  # fmt: skip
def test_the_field_types_the_value(written: str, on: str, expected: Predicate) -> None:
    found = predicate(written, on)
    assert found == expected
    assert isinstance(found, Predicate)
    assert [type(v) for v in found.values] == [type(v) for v in expected.values]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2]", "1:1: a policy must be a mapping, found a list (its keys: apiVersion, kind, metadata, workloads, mode, on_daemon_loss, daemon_grace, budget, on_flood, hold, guard, lists, programs, rules)"),
        (with_line(1, "apiVersion: killswitch/v2"),
         "1:13: 'killswitch/v2' is not a version of this format (did you mean 'killswitch/v1'?)"),
        (with_line(2, "kinds: Policy"), "1:1: a policy needs the key 'kind' (Always Policy)\np.yaml:2:1: unknown key 'kinds' in a policy (did you mean 'kind'?)"),
        (with_line(3, "metadata: {name: Test, version: 1}"),
         "3:18: 'name' must be lower-case letters, digits, '.', '_' and '-', found 'Test'"),
        (with_line(3, "metadata: {name: test, version: 1.5}"), "3:33: 'version' must be a whole number from 1, found '1.5'"),
        (with_line(3, "metadata: {name: test, version: }"), "3:33: 'version' has no value"),
        (with_line(5, "  - /test/**"), "5:5: a workload must be a mapping, found '/test/**' (its keys: cgroup)"),
        (with_line(5, "  - cgroup: test/**"), "5:13: a cgroup glob starts with '/', found 'test/**' (write '/test/**')"),
        (with_line(5, "  - cgroup: /"), "5:13: '/' is the root cgroup, which is the host and never a workload (name a cgroup below it)"),
        (with_line(5, "  - cgroup: /**"), "5:13: '/**' matches every cgroup, which is the host and never a workload (name at least one cgroup)"),
        (with_line(5, "  - cgroup: /system.slice/*"),
         "5:13: '/system.slice/*' would watch /system.slice/ssh.service, the operators' way in (name the slice or the service that the workload runs in)"),
        (with_line(6, "mode: enforced"), "6:7: 'enforced' is not a mode (did you mean 'enforce'?)"),
        (with_line(8, "  miners: xmrig"),
         "8:11: 'miners' must be a list, found 'xmrig' (write [a, b], or lines that start with '- ')\n"
         "p.yaml:15:28: there is no list '$miners' in this file (name it under 'lists:')"),
        (with_line(8, "  miners: [a, $miners]"), "8:15: a list cannot be part of itself: miners → miners"),
        (with_line(10, "  - id: Rule 1"), "10:9: 'id' must be lower-case letters, digits, '.', '_' and '-', found 'Rule 1'"),
        (with_line(11, "    titel: A rule"),
         "10:5: a rule needs the key 'title' (One line for people)\np.yaml:11:5: unknown key 'titel' in a rule (did you mean 'title'?)"),
        (with_line(12, "    level: hihg"), "12:12: 'hihg' is not a level (did you mean 'high'?)"),
        (with_line(13, "    on: exce"), "13:9: 'exce' is not an event (did you mean 'exec'?)"),
        (group("{proces.name: x}"), "15:14: unknown field 'proces.name' (did you mean 'process.name'?)"),
        (group("{cpu.cores|gte: 1}"), "15:14: an event of 'on: exec' has no 'cpu.cores' (it is there with 'on: cpu')"),
        (group("{process.args|contain: x}"), "15:14: unknown modifier 'contain' (did you mean 'contains'?)"),
        (group("{user.id|contains: 1}"), "15:14: 'user.id' is a number: it has no 'contains' (its modifiers: gt, gte, lt, lte, exists)"),
        (group("{process.args|contains|re: x}"), "15:14: 'contains' and 're' cannot go together (use two lines, or two groups joined by 'and')"),
        (group("{process.args|all|all: [x, y]}"), "15:14: modifier 'all' is given twice"),
        (group("{process.args|contains|all: x}"), "15:14: 'all' needs a list of two values or more (leave 'all' out)"),
        (group("{user.id: root}"), "15:23: 'user.id' must be a whole number, found 'root'"),
        (group("{user.id: 010}"), "15:23: 'user.id' must be a whole number, found '010' (without a leading zero)"),
        (group("{file.memfd: yes}"), "15:26: 'file.memfd' must be true or false, found 'yes'"),
        (group("{destination.ip: 10.0.0.0/8}", "connect"),
         "15:30: '10.0.0.0/8' is not an IP address (for a network write 'destination.ip|cidr')"),
        (group("{destination.ip|cidr: 10.0.0.1/8}", "connect"),
         "15:35: '10.0.0.1/8' is not a network: 10.0.0.1/8 has host bits set (write 10.0.0.0/8 or fd00::/8)"),
        (group("{destination.port: 70000}", "connect"), "15:32: 'destination.port' lies between 0 and 65535, found 70000"),
        (group("{network.transport: tpc}", "connect"), "15:33: 'tpc' is never a 'network.transport' (did you mean 'tcp'?)"),
        (group("{process.args|re: '(a'}"), "15:31: '(a' is not an expression: missing ): (a (RE2's syntax: no back-references, no look-around)"),
        (group("{process.args|re: '(?=a)'}"),
         "15:31: '(?=a)' is not an expression: invalid perl operator: (?= (RE2's syntax: no back-references, no look-around)"),
        (group("{process.args|contains: ''}"), "15:37: an empty text is in every 'process.args' (name what to look for)"),
        (group("{process.name: bin/x}"),
         "15:28: 'process.name' is a name without its folder: 'bin/x' never matches (write the last part alone, or ask 'process.executable')"),
        (group("{process.executable: xmrig}"),
         "15:34: 'process.executable' is an absolute path: 'xmrig' never matches (write '*/xmrig', or ask 'process.name')"),
        (group("{process.name: null}"), "15:28: 'process.name' has no value (quote it for the word 'null', or ask 'process.name|exists: false')"),
        (group("{process.name: $minrs}"), "15:28: there is no list '$minrs' in this file (did you mean 'miners'?)"),
        (group("{process.name: []}"), "15:28: 'process.name' has no value"),
        (group("{process.name: {a: b}}"), "15:28: expected a value or a list of values, found a mapping"),
        (group("[xmrig]"), "15:14: 'name' must list mappings from fields to values, found 'xmrig' (say which field: {process.name: …}; words without a field are not searched for)"),
        (group("{}"), "15:13: 'name' is empty (an empty group would match every event)"),
        (with_line(16, "    condition: name and nmae"), "16:25: 'nmae' is not a name of 'match' (did you mean 'name'?)"),
        (with_line(16, "    condition: >-\n      name\n      and (name"), "18:11: this '(' is never closed (add ')')"),
        (with_line(15, "      name: {process.name: a}\n      other: {process.name: b}"),
         "16:7: 'other' is not used in the condition (use it there or remove it: now it changes nothing)"),
        (with_line(16, "    condition: name\n    for: 20s"),
         "17:10: 'for' has no sense with 'on: exec', which happens in an instant ('on: cpu' comes in windows, and is the only one that lasts: remove 'for')"),
        (with_line(16, "    condition: name\n    for: 20"), "17:10: 'for' must be a duration, as in 20s, 5m or 1h500ms, found '20'"),
        (with_line(17, "    response: kill_process"), "17:15: 'response' must be a list, found 'kill_process' (write [a, b], or lines that start with '- ')"),
        (with_line(17, "    response: []"), "17:15: 'response' is empty"),
        (with_line(17, "    response: [sever, sever]"), "17:23: 'sever' is given twice"),
        (with_line(17, "    response: [sverr]"), "17:16: 'sverr' is not a response (did you mean 'sever'?)"),
        (with_line(17, "    response: [alert]\n    tests: [{event: {ssh.forward: remote}, expect: match}]"),
         "18:22: 'ssh.forward' cannot be given in a test (it is read from the arguments: give process.executable: /usr/bin/ssh and process.args)"),
        (with_line(17, "    response: [alert]\n    tests: [{event: {process.command_line: it's}, expect: match}]"),
         "18:44: 'process.command_line' cannot be split as a shell would: No closing quotation (or give process.args)"),
        (with_line(17, "    response: [alert]\n    tests: [{event: {process.name|contains: x}, expect: match}]"),
         "18:22: an event has values, not modifiers: 'process.name|contains' (name the field alone)"),
        (with_line(17, "    response: [alert]\n    tests: [{event: {process.name: x}, expect: yes}]"),
         "18:48: 'yes' is not an expectation (known: match, no_match)"),
    ],
)  # fmt: skip
def test_each_problem_has_its_place_cause_and_mend(text: str, expected: str) -> None:
    assert "\n".join(problems(text)) == f"p.yaml:{expected}"


def test_all_problems_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = GOOD.replace("enforce", "enforced").replace("high", "hihg").replace("process.name", "proces.name")
    text = text.replace("condition: name", "condition: nam").replace("[alert]", "[alret]")
    assert [p.split(": ")[0] for p in problems(text)] == [
        "p.yaml:6:7", "p.yaml:12:12", "p.yaml:15:14", "p.yaml:16:16", "p.yaml:17:16",
    ]  # fmt: skip


def test_all_files_are_told_at_once_and_what_is_wrong_between_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD.replace("name: test", "name: other"))
    (tmp_path / "c.yaml").write_text(GOOD)
    (tmp_path / "d.yaml").write_bytes(b"\xff")
    (tmp_path / "e.yaml").mkdir()
    with pytest.raises(PolicyError) as caught:
        load.load_files(tmp_path / f"{n}.yaml" for n in "abcdef")
    assert [str(p).replace(f"{tmp_path}/", "") for p in caught.value.problems] == [
        "d.yaml:1:1: not UTF-8: byte 0xff (save the file as UTF-8)",
        "e.yaml:1:1: cannot be read: Is a directory",
        "f.yaml:1:1: cannot be read: No such file or directory",
        "b.yaml:10:1: rule id 'rule-1' is already in a.yaml:10 (rule ids are unique among all policies)",
        "c.yaml:1:1: policy 'test' is already in a.yaml (give it a name of its own under 'metadata')",
    ]


def test_a_rule_id_twice_in_a_file_is_refused() -> None:
    twice = GOOD + GOOD[GOOD.index("  - id:") :]
    assert problems(twice) == ["p.yaml:18:9: rule id 'rule-1' is given twice (first at line 10)"]


def test_lists_of_lists_cannot_explode() -> None:
    names = [f"l{i}" for i in range(30)]
    lists = "".join(f"  {n}: [{', '.join([f'${names[i - 1]}'] * 9) if i else 'a, b'}]\n" for i, n in enumerate(names))
    policy = load.load_text(GOOD.replace("lists:\n", "lists:\n" + lists).replace("$miners", "$l29"), "p.yaml")
    condition = policy.rules[0].condition
    assert isinstance(condition, Predicate)
    assert condition.values == ("a", "b")


SOURCE = SHIPPED.read_text()
TOKENS = re.findall(r"\s+|\w+|.", SOURCE)
JUNK = st.sampled_from(
    [
        "",
        " ",
        "\n",
        "\t",
        ":",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        "|",
        ">",
        "&a",
        "*a",
        "!!x",
        "$miners",
        "null",
        "#",
        "---",
        "\\",
        "\x00",
        "é",
        "9" * 30,
    ]
)


def test_problems_are_bounded_and_so_is_the_time_for_them() -> None:
    found = problems("".join(f"key{i}: 1\n" for i in range(5000)))
    assert len(found) == 501
    assert found[-1].endswith("more than 500 problems: the rest is not told")


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(TOKENS) - 1), JUNK), min_size=1, max_size=4), st.integers(0, 400))
def test_a_mutated_policy_loads_or_tells_where(changes: list[tuple[int, str]], cut: int) -> None:
    tokens = list(TOKENS)
    for place, junk in changes:
        tokens[place] = junk
    text = "".join(tokens[: len(tokens) - cut])
    try:
        assert isinstance(load.load_text(text, "p.yaml"), Policy)
    except PolicyError as error:
        assert error.problems
        lines = text.count("\n") + 2
        assert all(p.file == "p.yaml" and 1 <= p.line <= lines and p.column >= 1 and p.message for p in error.problems)


@settings(max_examples=150, deadline=None)
@given(content=st.text(max_size=300) | st.binary(max_size=300))
def test_any_content_loads_or_tells_where(content: str | bytes) -> None:
    if isinstance(content, str):
        assert problems(content)
        return
    text, found = source.decode(content, "p.yaml")
    assert found or problems(text)


def test_every_key_of_the_shape_reaches_the_model() -> None:
    """A key that is allowed but read by nobody would be silently ignored."""
    rule = next(k.type for n, k in POLICY.keys.items() if n == "rules")
    record = getattr(rule, "of", None)
    assert isinstance(record, Record)
    names = {f.name for f in dataclasses.fields(Rule)} | {"match", "for", "timespan", "falsepositives"}
    assert set(record.keys) <= names
