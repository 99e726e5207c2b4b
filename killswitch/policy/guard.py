"""What a policy says of LSM programs: ``guard``."""

from __future__ import annotations

from collections.abc import Iterable

from killswitch.commands import NO_GUARD, Guard, Mode
from killswitch.errors import Problem
from killswitch.policy.model import Policy
from killswitch.policy.source import Node, Scalar, Seq


def guarded(policies: Iterable[Policy]) -> Guard:
    """All that any of them asks for. A policy that only monitors refuses nobody anything."""
    asked = NO_GUARD
    for policy in policies:
        if policy.mode is Mode.ENFORCE:
            asked |= policy.guard
    return asked


def read_guard(node: Node | None, file: str, problems: list[Problem]) -> Guard:
    """``guard`` of a policy's tree, whose shape has been checked; what is wrong with it goes to ``problems``."""
    asked = NO_GUARD
    for item in node.items if isinstance(node, Seq) else ():
        if not isinstance(item, Scalar) or item.text.upper() not in Guard.__members__:
            continue
        one = Guard[item.text.upper()]
        if one in asked:
            problems.append(Problem(file, item.line, item.column, f"'{item.text}' is given twice"))
        asked |= one
    return asked
