"""From policy files to what is in force: read, checked and compiled as a whole, or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from killswitch.control.service import PolicyInfo
from killswitch.daemon import proofpolicy
from killswitch.errors import PolicyError, Problem
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.load import load_files, load_text


def compile_files(files: Sequence[Path], generation: int) -> Compiled:
    """Raises PolicyError with all the problems of all files."""
    if not files:
        raise PolicyError(
            [Problem("policies", 1, 1, "there are none", "put at least one *.yaml in a policy directory")]
        )
    return dataclasses.replace(proofpolicy.compile_with(load_files(files)), generation=generation)


def problems_of(text: str, file: str) -> tuple[Problem, ...]:
    """What is wrong with one policy, compilation included; empty: it would load."""
    try:
        compile_policies([load_text(text, file)])
    except PolicyError as e:
        return tuple(e.problems)
    return ()


def describe(compiled: Compiled) -> tuple[PolicyInfo, ...]:
    policies = proofpolicy.operators(compiled)
    rules: list[list[dict[str, str]]] = [[] for _ in policies]
    for c in compiled.rules:
        if c.policy_index >= len(policies):
            continue
        rules[c.policy_index].append(
            {
                "id": c.rule.id,
                "title": c.rule.title,
                "level": str(c.rule.level),
                "on": c.rule.on,
                "tier": str(c.tier),
                "why": c.why,
                "response": " ".join(map(str, c.rule.response)),
            }
            | ({"act": c.rule.act, "evidence": c.rule.evidence} if c.rule.act and c.rule.evidence else {})
        )
    return tuple(
        PolicyInfo(p.name, p.version, str(p.mode), p.file, p.workloads, tuple(rules[i])) for i, p in enumerate(policies)
    )
