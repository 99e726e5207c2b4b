"""``killswitch policy check``: everything that can be said of policy files before they are in force.

Load (all problems of all files), compile (what the data plane cannot hold), and the rules' own tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from killswitch.errors import PolicyError, Problem
from killswitch.policy.compile import compile_policies
from killswitch.policy.inline import run_inline_tests
from killswitch.policy.load import read_files, read_text
from killswitch.policy.model import Policy


def check_files(paths: Iterable[Path]) -> list[Problem]:
    """The problems of these files, each once; [] when they can be put in force. Never raises for what a file holds."""
    policies, problems = read_files(paths)
    return _unique([*problems, *_check(policies)])


def check_text(text: str, file: str) -> list[Problem]:
    """The same for one policy that is not (yet) a file. ``file`` is its name in problems."""
    policy, problems = read_text(text, file)
    return _unique([*problems, *_check([policy] if policy else [])])


def policy_files(paths: Iterable[Path]) -> list[Path]:
    """Each path itself, or what a directory holds (``*.yaml`` and ``*.yml``, by name). A file that is not there stays in."""
    found: list[Path] = []
    for path in paths:
        found += sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
    return found


def _check(policies: Sequence[Policy]) -> list[Problem]:
    if not policies:
        return []
    try:
        compiled = compile_policies(policies)
    except PolicyError as error:
        return error.problems
    return run_inline_tests(policies, compiled)


def _unique(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
