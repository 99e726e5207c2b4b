"""YAML policies → ``model.Policy``: all that is wrong with all the files, at once.

load_files([Path("a.yaml"), Path("b.yaml")]) -> [Policy, Policy]      raises PolicyError
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from killswitch.commands import Mode
from killswitch.errors import PolicyError, Problem
from killswitch.policy import source
from killswitch.policy.absence import read_absence, read_hold
from killswitch.policy.guard import read_guard
from killswitch.policy.limits import read_limits
from killswitch.policy.lists import resolve_lists
from killswitch.policy.model import Policy, Rule
from killswitch.policy.programs import MAX_LENGTH, MIN_LENGTH, Program
from killswitch.policy.rules import MAX_PROBLEMS, RuleBuilder
from killswitch.policy.schema import IDENTIFIER, check_shape
from killswitch.policy.source import Map, Node, Scalar, Seq
from killswitch.policy.workloads import glob_problem

MAX_POLICIES = 64  # a workload's policy set is one 64-bit word in the data plane


def load_files(paths: Iterable[Path]) -> list[Policy]:
    """The policies of these files, in this order. Raises PolicyError with the problems of all of them."""
    policies, problems = read_files(paths)
    if problems:
        raise PolicyError(problems)
    return policies


def load_text(text: str, file: str) -> Policy:
    """The policy in ``text``; ``file`` is its name in problems. Raises PolicyError."""
    policy, problems = read_text(text, file)
    if problems or policy is None:
        raise PolicyError(problems)
    return policy


def read_files(paths: Iterable[Path]) -> tuple[list[Policy], list[Problem]]:
    """The policies that are sound, and the problems of the others. Never raises for what a file holds."""
    policies: list[Policy] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            problems.append(Problem(str(path), 1, 1, f"cannot be read: {error.strerror}"))
            continue
        text, found = source.decode(data, str(path))
        policy = None
        if not found:
            policy, found = read_text(text, str(path))
        problems += found
        if policy is not None:
            policies.append(policy)
    problems += _across(policies)
    return policies, problems


def read_text(text: str, file: str) -> tuple[Policy | None, list[Problem]]:
    """The policy, or None and why; problems in the order of their lines."""
    root, problems = source.parse(text, file)
    if root is None:
        return None, problems
    problems += islice(check_shape(root, file), MAX_PROBLEMS + 1)
    policy = _build(root, file, problems) if isinstance(root, Map) else None
    problems = sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column))
    if len(problems) > MAX_PROBLEMS:
        last = problems[MAX_PROBLEMS]
        problems[MAX_PROBLEMS:] = [
            Problem(file, last.line, last.column, f"more than {MAX_PROBLEMS} problems: the rest is not told")
        ]
    return (None if problems else policy), problems


def _build(root: Map, file: str, problems: list[Problem]) -> Policy | None:
    workloads = _workloads(root.get("workloads"), file, problems)
    programs = _programs(root.get("programs"), file, problems)
    builder = RuleBuilder(file, resolve_lists(root.get("lists"), file, problems), problems)
    rules: list[Rule] = []
    node = root.get("rules")
    seen: dict[str, int] = {}
    for item in node.items if isinstance(node, Seq) else ():
        if len(problems) > MAX_PROBLEMS:
            break
        if not isinstance(item, Map):
            continue
        rule = builder.build(item)
        identity = item.get("id")
        if isinstance(identity, Scalar) and re.fullmatch(IDENTIFIER, identity.text):
            if identity.text in seen:
                message = f"rule id '{identity.text}' is given twice"
                hint = f"first at line {seen[identity.text]}"
                problems.append(Problem(file, identity.line, identity.column, message, hint))
            seen.setdefault(identity.text, identity.line)
        if rule is not None:
            rules.append(rule)
    hold = read_hold(root)
    on_daemon_loss, daemon_grace_ns = read_absence(root, file, problems, hold)
    budget, on_flood = read_limits(root, file, problems)
    guard = read_guard(root.get("guard"), file, problems)
    if problems:
        return None
    metadata = root.get("metadata")
    if not isinstance(metadata, Map):
        return None
    return Policy(
        name=_text(metadata.get("name")),
        version=int(_text(metadata.get("version"))),
        workloads=workloads,
        mode=Mode(_text(root.get("mode"))),
        rules=tuple(rules),
        file=file,
        lists={k: tuple(s.text for s in v) for k, v in builder.lists.values.items()},
        on_daemon_loss=on_daemon_loss,
        daemon_grace_ns=daemon_grace_ns,
        hold=hold,
        guard=guard,
        programs=programs,
        budget=budget,
        on_flood=on_flood,
    )


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _workloads(node: Node | None, file: str, problems: list[Problem]) -> tuple[str, ...]:
    globs: list[str] = []
    for item in node.items if isinstance(node, Seq) else ():
        glob = item.get("cgroup") if isinstance(item, Map) else None
        if not isinstance(glob, Scalar) or glob.is_null or not glob.text.strip():
            continue
        wrong = glob_problem(glob.text)
        if wrong:
            problems.append(Problem(file, glob.line, glob.column, *wrong))
        elif glob.text in globs:
            problems.append(Problem(file, glob.line, glob.column, f"'{glob.text}' is given twice"))
        globs.append(glob.text)
    return tuple(globs)


def _programs(node: Node | None, file: str, problems: list[Problem]) -> tuple[Program, ...]:
    found = []
    for name, value in node.entries if isinstance(node, Map) else ():
        if not isinstance(value, Map):
            continue
        texts: dict[str, tuple[str, ...]] = {}
        for key in ("all", "any", "none"):
            listed = value.get(key)
            markers = [m for m in listed.items if isinstance(m, Scalar)] if isinstance(listed, Seq) else []
            for marker in markers:
                if not MIN_LENGTH <= len(marker.text.encode()) <= MAX_LENGTH:
                    message = f"'{marker.text[:40]}' tells no program: a text has {MIN_LENGTH} to {MAX_LENGTH} bytes"
                    problems.append(Problem(file, marker.line, marker.column, message))
            texts[key] = tuple(m.text for m in markers)
        least = value.get("least")
        number = int(least.text) if isinstance(least, Scalar) and least.text.isdecimal() else 1
        if len(texts["all"]) + min(number, len(texts["any"])) < 2:
            message = f"'{name.text}' is told by one text alone: whatever mentions that would be it"
            hint = "ask for two at least, by 'all' or by 'any' and 'least'"
            problems.append(Problem(file, name.line, name.column, message, hint))
        if number > max(1, len(texts["any"])):
            message = f"'least' of '{name.text}' asks for more texts than 'any' has"
            problems.append(Problem(file, name.line, name.column, message))
        found.append(Program(name.text, texts["all"], texts["any"], number, texts["none"]))
    return tuple(found)


def _across(policies: list[Policy]) -> list[Problem]:
    """What is wrong between files: names and rule ids are what findings are told apart by."""
    problems: list[Problem] = []
    names: dict[str, Policy] = {}
    rules: dict[str, tuple[Policy, Rule]] = {}
    for policy in policies:
        other = names.setdefault(policy.name, policy)
        if other is not policy:
            message = f"policy '{policy.name}' is already in {other.file}"
            problems.append(Problem(policy.file, 1, 1, message, "give it a name of its own under 'metadata'"))
            continue  # the same file twice: its rules need not be told one by one
        for rule in policy.rules:
            first, found = rules.setdefault(rule.id, (policy, rule))
            if first is not policy:
                message = f"rule id '{rule.id}' is already in {first.file}:{found.line}"
                problems.append(Problem(policy.file, rule.line, 1, message, "rule ids are unique among all policies"))
    if len(policies) > MAX_POLICIES:
        message = f"{len(policies)} policies are more than the {MAX_POLICIES} that can be loaded together"
        problems.append(Problem(policies[MAX_POLICIES].file, 1, 1, message, "put rules together in fewer files"))
    return problems
