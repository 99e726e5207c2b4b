"""Inline tests are put to the compiled policy itself, and one that does not hold is a problem with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from killswitch.events import CgroupMove, Connect, Cpu, Exec, Exit, Fork, Listen
from killswitch.policy import check
from killswitch.policy.check import check_files, check_text, policy_files
from killswitch.policy.inline import WINDOW, build_event

POLICY = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {name: test, version: 1}
workloads:
  - cgroup: /test/**
mode: enforce
rules:
  - id: rule-1
    title: A rule
    level: high
    on: %s
    match:
      x: %s
    condition: x
    response: [alert]
    tests:
      - {event: %s, expect: %s}
"""


@pytest.mark.parametrize(
    ("on", "group", "event", "matches"),
    [
        ("exec", "{process.name: xmrig}", "{process.executable: /tmp/XMRig}", True),
        ("exec", "{process.name: xmrig}", "{process.name: xmrig}", True),
        ("exec", "{process.name: xmrig}", "{process.executable: /bin/busybox, process.name: xmrig}", True),
        ("exec", "{process.name: xmrig}", "{process.executable: /xmrig/x}", False),
        ("exec", "{process.args|contains|all: [a, b]}", "{process.args: [xa, bx]}", True),
        ("exec", "{process.args|contains|all: [a, b]}", "{process.args: [xa]}", False),
        ("exec", "{process.args: '-x y'}", "{process.command_line: \"z '-x y'\"}", True),
        ("exec", "{process.args|cased: -R}", "{process.args: [x, -r]}", False),
        ("exec", "{process.args: end}", "{process.args: [x, end], process.args_truncated: true}", True),
        ("exec", "{process.args_truncated: true}", "{process.args: [x], process.args_truncated: true}", True),
        ("exec", "{process.parent.name: bash}", "{process.parent.name: bash}", True),
        ("exec", "{process.parent.name: bash}", "{process.parent.name: sh}", False),
        ("exec", "{file.memfd: true}", "{file.memfd: true}", True),
        ("exec", "{file.unlinked: true}", "{file.memfd: true}", False),
        ("exec", "{file.inode_of: /usr/bin/env}", "{file.inode_of: /usr/bin/env}", True),
        ("exec", "{file.inode_of: /usr/bin/env}", "{process.executable: /usr/bin/env}", False),
        ("exec", "{ssh.forward: remote}", "{process.executable: /usr/bin/ssh, process.args: [ssh, -NR9, h]}", True),
        ("exec", "{ssh.forward: remote}", "{process.executable: /usr/bin/ssh, process.args: [ssh, h, ls, -R]}", False),
        ("exec", "{user.id: 0}", "{user.id: 0}", True),
        ("exec", "{group.id|lt: 100}", "{group.id: 100}", False),
        ("connect", "{destination.ip|cidr: 10.0.0.0/8}", "{destination.ip: 10.9.9.9}", True),
        ("connect", "{destination.ip|cidr: 10.0.0.0/8}", "{destination.ip: '::ffff:10.9.9.9'}", True),
        ("connect", "{destination.port: [3333, 4444]}", "{destination.port: 4444}", True),
        ("connect", "{network.transport: udp, event.action: sendmsg}", "{network.transport: udp, event.action: sendmsg}", True),
        ("connect", "{process.name: curl}", "{process.name: curl}", True),
        ("connect", "{process.name: curl}", "{destination.port: 1}", False),
        ("listen", "{source.port|lt: 1024, source.ip: 0.0.0.0}", "{source.port: 80, source.ip: 0.0.0.0}", True),
        ("cgroup_move", "{cgroup.path: /elsewhere/*}", "{cgroup.path: /elsewhere/x}", True),
        ("cpu", "{cpu.hashing|gte: 0.7, cpu.cores|gt: 1}", "{cpu.hashing: 0.7, cpu.cores: 1.01}", True),
        ("cpu", "{cpu.kernel_share|gt: 0.5}", "{cpu.kernel_share: 0.5}", False),
        ("fork", "{process.pid: 7}", "{process.pid: 7}", True),
        ("exit", "{process.name|exists: true}", "{process.pid: 7}", False),
    ],
)  # fmt: skip
def test_an_event_given_by_its_fields_is_judged(on: str, group: str, event: str, matches: bool) -> None:
    right, wrong = ("match", "no_match") if matches else ("no_match", "match")
    assert check_text(POLICY % (on, group, event, right), "p.yaml") == []
    (problem,) = check_text(POLICY % (on, group, event, wrong), "p.yaml")
    assert (problem.file, problem.line, problem.column) == ("p.yaml", 17, 9)
    told = "matches" if matches else "does not match"
    assert problem.message.startswith(f"test of rule 'rule-1' fails: the rule {told} {{")
    assert problem.message.endswith(f"expected {wrong}")


@pytest.mark.parametrize(
    ("on", "kind"),
    [
        ("exec", Exec),
        ("fork", Fork),
        ("exit", Exit),
        ("connect", Connect),
        ("listen", Listen),
        ("cgroup_move", CgroupMove),
        ("cpu", Cpu),
    ],
)
def test_every_kind_of_event_can_be_built_from_nothing(on: str, kind: type) -> None:
    event, extra = build_event(on, {})
    assert type(event) is kind
    assert extra == {}


def test_long_arguments_are_cut_as_the_kernel_cuts_them() -> None:
    event, _ = build_event("exec", {"process.args": ("x", "a" * 5000)})
    assert isinstance(event, Exec)
    assert (len(event.argv), event.argv_total, event.truncated) == (WINDOW, 5003, True)


def test_fields_that_no_event_carries_are_handed_on() -> None:
    event, extra = build_event("cpu", {"cpu.cores": 2.0, "cpu.hashing": 0.9, "process.name": "x"})
    assert isinstance(event, Cpu)
    assert event.cores == 2.0
    assert extra == {"cpu.hashing": 0.9, "process.name": "x"}


def test_files_are_checked_together_and_each_problem_once(tmp_path: Path) -> None:
    good = POLICY % ("exec", "{process.name: x}", "{process.name: y}", "match")
    (tmp_path / "a.yaml").write_text(good)
    (tmp_path / "b.yaml").write_text(good.replace("level: high", "level: hihg"))
    (tmp_path / "notes.txt").write_text("not a policy")
    found = check_files([*policy_files([tmp_path]), tmp_path / "a.yaml"])
    assert [str(p).replace(f"{tmp_path}/", "") for p in found] == [
        "b.yaml:10:12: 'hihg' is not a level (did you mean 'high'?)",
        "a.yaml:1:1: policy 'test' is already in PATH (give it a name of its own under 'metadata')".replace(
            "PATH", str(tmp_path / "a.yaml")
        ).replace(f"{tmp_path}/", ""),
        "a.yaml:17:9: test of rule 'rule-1' fails: the rule does not match {process.name: y}, expected match",
    ]


SHIPPED = (Path(check.__file__).parent.parent / "policies" / "rogue-agent.yaml").read_text()
WORDS = re.findall(r"\s+|\w+|.", SHIPPED)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(WORDS) - 1), st.integers(0, len(WORDS) - 1)), max_size=3))
def test_a_policy_with_words_changed_for_others_of_its_own_is_checked_and_nothing_raises(
    swaps: list[tuple[int, int]],
) -> None:
    words = list(WORDS)
    for one, other in swaps:
        words[one] = WORDS[other]
    assert all(p.file == "p.yaml" and p.message for p in check_text("".join(words), "p.yaml"))
