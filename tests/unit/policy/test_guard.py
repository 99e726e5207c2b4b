"""What policies have LSM programs refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

import killswitch
from killswitch.commands import NO_GUARD, Guard
from killswitch.errors import PolicyError
from killswitch.policy.guard import guarded
from killswitch.policy.load import load_files, load_text
from killswitch.policy.model import Policy

POLICIES = Path(killswitch.__file__).parent / "policies"
TEXT = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {{name: p, version: 1}}
workloads: [{{cgroup: /x}}]
mode: {mode}
{more}
rules:
  - {{id: r, title: r, level: low, on: exec, match: {{a: {{process.name: x}}}}, condition: a, response: [alert]}}
"""


def policy(more: str = "", *, mode: str = "enforce") -> Policy:
    return load_text(TEXT.format(more=more, mode=mode), "p.yaml")


def test_several_policies_add_up_and_one_that_monitors_refuses_nothing() -> None:
    assert guarded([]) == guarded([policy()]) == NO_GUARD
    both = [
        policy("guard: [bpf, cgroup_files]"),
        policy("guard: [bpf, ptrace]"),
        policy("guard: [signals]", mode="monitor"),
    ]
    assert guarded(both) == Guard.BPF | Guard.CGROUP_FILES | Guard.PTRACE


@pytest.mark.parametrize("guard", list(Guard))
def test_each_has_its_word(guard: Guard) -> None:
    assert guard.name
    assert policy(f"guard: [{guard.name.lower()}]").guard == guard


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guard: [bpf, bpf]", "6:14: 'bpf' is given twice"),
        ("guard: [ptrce]", "6:9: 'ptrce' is not a guard (did you mean 'ptrace'?)"),
        ("guard: bpf", "6:8: 'guard' must be a list, found 'bpf'"),
        ("guard: []", "6:8: 'guard' is empty"),
    ],
)
def test_what_is_wrong_has_its_place(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as error:
        policy(text)
    assert said in str(error.value)


def test_the_shipped_policy_leaves_signals_to_whoever_uses_them() -> None:
    (policy,) = (p for p in load_files([POLICIES / "rogue-agent.yaml"]))
    assert [guard for guard in Guard if guard not in policy.guard] == [Guard.SIGNALS]
