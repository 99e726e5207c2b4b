"""The shipped policies: they load, hold their own tests, are judged where they should be, and have a current schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from killswitch.commands import Level, Response
from killswitch.policy import catalogue, fields
from killswitch.policy.check import check_files
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.explain import explain
from killswitch.policy.fields import INSPECTED
from killswitch.policy.inline import build_event
from killswitch.policy.jsonschema import policy_schema, policy_schema_text
from killswitch.policy.load import load_files, load_text

FOLDER = Path(catalogue.__file__).parent.parent / "policies"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_policies(load_files(FILES))


def matched(compiled: Compiled, on: str, **given: object) -> set[str]:
    event, extra = build_event(on, {k.replace("__", "."): v for k, v in given.items()})
    return {m.rule.id for m in compiled.matches(event, (1 << len(compiled.policies)) - 1, extra)}


def stops(compiled: Compiled, ids: set[str]) -> bool:
    return any(set(r.rule.response) - {Response.ALERT} for r in compiled.rules if r.rule.id in ids)


def test_they_are_sound_and_hold_their_own_tests() -> None:
    assert FILES
    assert check_files(FILES) == []


def test_every_rule_has_tests_of_both_kinds() -> None:
    for policy in load_files(FILES):
        for rule in policy.rules:
            assert {t.match for t in rule.tests} == {True, False}, rule.id


def test_every_rule_says_what_it_is_evidence_of() -> None:
    for policy in load_files(FILES):
        assert [rule.id for rule in policy.rules if rule.act is None and rule.on != "finding"] == []


def test_what_stops_work_is_judged_in_the_kernel(compiled: Compiled) -> None:
    explained = explain(compiled.policies, compiled)
    for rule in explained.rules:
        if rule.on == "exec":
            found_out_later = INSPECTED.intersection(rule.fields)
            assert (rule.tier, rule.why) == (1, "") or (rule.tier == 3 and found_out_later), rule.rule
        if Response.KILL_PROCESS in rule.in_daemon and not INSPECTED.intersection(rule.fields):
            pytest.fail(f"{rule.rule} kills, and the kernel does not do it")
    assert explained.states < explained.max_states
    assert explained.clauses < explained.max_clauses


def test_rules_that_alert_only_are_not_critical(compiled: Compiled) -> None:
    for one in compiled.rules:
        if set(one.rule.response) == {Response.ALERT}:
            assert one.rule.level is not Level.CRITICAL, one.rule.id


INNOCENT = [
    ("/usr/bin/gcc", ["gcc", "-O2", "-o", "miner.o", "-c", "miner.c"]),
    ("/usr/bin/echo", ["echo", "-o stratum+tcp"]),
    ("/usr/bin/echo", ["echo", "stratum+tcp://x:1", "-u", "y", "--donate-level=1", "--nicehash"]),
    ("/usr/bin/vim.basic", ["vi", "xmrig.json"]),
    ("/usr/bin/git", ["git", "clone", "https://example.org/xmrig.git"]),
    ("/usr/bin/python3.11", ["python3", "-c", "print('stratum+tcp://', '--donate-level')"]),
    ("/usr/bin/python3.11", ["python3", "-m", "pytest", "-u", "tests/test_rx/0"]),
    ("/usr/bin/ssh", ["ssh", "host", "ls", "-R"]),
    ("/usr/bin/ssh", ["ssh", "-iMyRSAKey", "host"]),
    ("/usr/bin/ssh", ["ssh", "-L", "8080:localhost:80", "host"]),
    ("/usr/bin/bash", ["bash", "-c", "ps aux | grep '[k]worker'"]),
    ("/usr/bin/sha256sum", ["sha256sum", "big"]),
    ("/usr/bin/sudo", ["sudo", "-u", "rig", "--user=x", "cn/r"]),
    ("/usr/bin/kubectl", ["kubectl", "get", "pods", "-O", "wide"]),
    ("/srv/migration", ["migration", "--user=app"]),
    ("/usr/bin/dbclient", ["dbclient", "host", "ls", "-R"]),
]


@pytest.mark.parametrize(("executable", "args"), INNOCENT)
def test_innocent_work_is_not_stopped(compiled: Compiled, executable: str, args: list[str]) -> None:
    found = matched(compiled, "exec", process__executable=executable, process__args=tuple(args))
    assert not stops(compiled, found), found


ROGUE = [
    ("/tmp/train", ["train", "-o", "stratum+tcp://p:3333", "-u", "w"], "miner-command-line"),
    ("/tmp/grep", ["grep", "-o", "stratum+tcp://p:3333", "-u", "w"], "miner-command-line"),
    ("/tmp/train", ["train", "-ostratum+ssl://p:443", "--user=w"], "miner-command-line"),
    ("/tmp/a", ["a", "--donate-level", "0", "--rig-id=x"], "miner-command-line"),
    ("/tmp/a", ["a", "--cpu-max-threads-hint=50", "--coin=monero"], "miner-command-line"),
    ("/dev/shm/SRBMiner-MULTI", ["x"], "miner-binary"),
    ("/usr/bin/ssh", ["ssh", "-4NR", "9000:localhost:22", "h"], "reverse-ssh-tunnel"),
    ("/usr/bin/ssh", ["ssh", "h", "-R", "9000"], "reverse-ssh-tunnel"),
    ("/usr/bin/ssh", ["ssh", "-oRemoteForward=9000 localhost:22", "h"], "reverse-ssh-tunnel"),
    ("/tmp/x", ["[kworker/u8:2]"], "kernel-thread-disguise"),
    ("/tmp/ksoftirqd_svc", ["x"], "kernel-thread-disguise"),
]


@pytest.mark.parametrize(("executable", "args", "rule"), ROGUE)
def test_rogue_work_is_stopped(compiled: Compiled, executable: str, args: list[str], rule: str) -> None:
    found = matched(compiled, "exec", process__executable=executable, process__args=tuple(args))
    assert rule in found
    assert stops(compiled, {rule})


def test_the_catalogue_and_the_matcher_know_the_same_fields() -> None:
    assert set(catalogue.FIELDS) == set(fields.FIELDS)
    for name, kind in catalogue.FIELDS.items():
        held = {on for on, event in fields.EVENT_TYPES.items() if event in fields.FIELDS[name].of}
        if name != "event.action":  # the others' action is their name: a rule says that with ``on``
            assert held <= kind.events, name


def test_the_json_schema_is_current() -> None:
    """To write it anew: python3 -m killswitch.policy.jsonschema > killswitch/policies/policy.v1.schema.json"""
    assert (FOLDER / "policy.v1.schema.json").read_text() == policy_schema_text()


def conforms(value: Any, schema: Any, root: Any) -> bool:
    """As much of JSON schema as ours uses."""
    if "$ref" in schema:
        return conforms(value, root["definitions"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema and not any(conforms(value, s, root) for s in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    types = schema.get("type")
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    said = {names[type(value)], *(["number"] if type(value) is int else [])}
    if types is not None and not said & ({types} if isinstance(types, str) else set(types)):
        return False
    if isinstance(value, dict):
        if not set(schema.get("required", ())) <= set(value):
            return False
        for key, item in value.items():
            fitting = [schema["properties"][key]] if key in schema.get("properties", {}) else []
            fitting += [s for p, s in schema.get("patternProperties", {}).items() if re.search(p, key)]
            if not fitting and schema.get("additionalProperties") is False:
                return False
            if not all(conforms(item, s, root) for s in fitting):
                return False
    if isinstance(value, list):
        return all(conforms(item, schema.get("items", {}), root) for item in value)
    if isinstance(value, str) and "pattern" in schema:
        return bool(re.search(schema["pattern"], value))
    return True


def as_an_editor_reads_it(file: Path) -> Any:
    """YAML 1.2's core schema: only true and false are booleans, so ``on`` is a word."""
    import yaml

    class Core(yaml.SafeLoader):
        pass

    Core.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag.endswith((":int", ":float", ":null"))]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Core.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))
    return yaml.load(file.read_text(), Loader=Core)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_editors_accept_the_shipped_policies_and_refuse_slips(file: Path) -> None:
    schema = json.loads(json.dumps(policy_schema()))
    read = as_an_editor_reads_it(file)
    assert conforms(read, schema, schema)
    slips: list[dict[str, Any]] = [{"modes": "enforce"}, {"mode": "enforced"}, {"workloads": "/x"}]
    for slip in slips:
        assert not conforms(read | slip, schema, schema)
    rule = read["rules"][0]
    slips = [
        {"match": {"x": {"process.nam": "y"}}},
        {"match": {"x": {"process.name|containz": "y"}}},
        {"level": "hihg"},
    ]
    for slip in slips:
        assert not conforms(read | {"rules": [rule | slip]}, schema, schema)


@pytest.mark.parametrize(
    ("on", "field", "value", "response"),
    [
        ("exec", "process.name", "program{}", "kill_process"),
        ("exec", "process.executable", "/opt/site/program{}", "kill_process"),
        ("exec", "process.args", "argument{}", "kill_process"),
        ("wire", "dns.question.name|domain", "host{}.example", "deny"),
    ],
)
def test_beside_them_there_is_room_for_hundreds_of_names(on: str, field: str, value: str, response: str) -> None:
    """None of their rules, and none of an operator's, is left to the daemon for want of room."""
    values = ", ".join(value.format(n * n) for n in range(300))
    text = f"""
apiVersion: killswitch/v1
kind: Policy
metadata: {{name: site, version: 1}}
workloads: [{{cgroup: /killswitch/**}}]
mode: enforce
rules:
  - id: site
    title: What this site forbids
    level: high
    on: {on}
    match: {{listed: {{{field}: [{values}]}}}}
    condition: listed
    response: [{response}]
"""
    policies = [*load_files(FILES), load_text(text, "site.yaml")]
    assert compile_policies(policies).warnings == ()
