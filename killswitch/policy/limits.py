"""How far policies may go by themselves: ``budget`` (how many workloads rules may contain, in what time), and ``on_flood`` (what
becomes of a workload that makes events faster than they are read)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from killswitch.commands import Mode, Response
from killswitch.errors import Problem
from killswitch.policy.duration import parse_duration
from killswitch.policy.source import Map, Node, Scalar

if TYPE_CHECKING:
    from killswitch.policy.model import Policy

CONTAINED = 40
PER_NS = 600_000_000_000
SHARE = 0.5
MIN_PER_NS, MAX_PER_NS = 1_000_000_000, 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """So many workloads may rules hit within a time: ``contained`` of them, or ``share`` of those that are watched, whichever is
    more. On a small host the number counts, where a share would be nobody; on a large one the share. ``share`` 1 is no limit."""

    contained: int = CONTAINED
    per_ns: int = PER_NS
    share: float = SHARE

    def most(self, watched: int) -> int:
        """Of so many watched workloads."""
        return max(self.contained, math.ceil(self.share * watched))

    @property
    def none(self) -> bool:
        return self.share >= 1


class OnFlood(StrEnum):
    """What is done with a workload that makes events faster than they are read, beside counting and telling it."""

    ALERT = "alert"
    SEVER = "sever"
    FREEZE = "freeze"  # severed and frozen, and evidence captured

    @property
    def responses(self) -> tuple[Response, ...]:
        return {
            OnFlood.ALERT: (),
            OnFlood.SEVER: (Response.SEVER,),
            OnFlood.FREEZE: (Response.SEVER, Response.FREEZE, Response.CAPTURE),
        }[self]


def limits(policies: Iterable[Policy], default: Limits) -> Limits:
    """The host has one budget: of the policies that name one the strictest in each part, ``default`` when none does."""
    named = [p.budget for p in policies if p.budget is not None]
    if not named:
        return default
    return Limits(min(b.contained for b in named), max(b.per_ns for b in named), min(b.share for b in named))


def on_flood(policies: Iterable[Policy]) -> OnFlood:
    """What all policies of one workload come to: the strictest. One that only monitors does nothing to anybody."""
    order = list(OnFlood)
    return max((p.on_flood for p in policies if p.mode is Mode.ENFORCE), key=order.index, default=OnFlood.ALERT)


def share_of(text: str) -> float | None:
    """``25%`` as 0.25; None for what is no whole percentage from 0% to 100%."""
    found = re.fullmatch(r"(\d{1,3})%", text)
    return int(found[1]) / 100 if found and int(found[1]) <= 100 else None


def read_limits(root: Map, file: str, problems: list[Problem]) -> tuple[Limits | None, OnFlood]:
    """(budget, on_flood) of a policy's tree, whose shape was checked; what is wrong besides goes to ``problems``."""
    asked = root.get("on_flood")
    flood = OnFlood(asked.text) if isinstance(asked, Scalar) and asked.text in tuple(OnFlood) else OnFlood.ALERT
    node = root.get("budget")
    if not isinstance(node, Map):
        return None, flood
    contained, share, per_ns = CONTAINED, SHARE, PER_NS
    number, part, span = (node.get(key) for key in ("contained", "share", "per"))
    if isinstance(number, Scalar) and number.text.isdecimal():
        contained = int(number.text)
    if isinstance(part, Scalar):
        known = share_of(part.text)
        share = SHARE if known is None else known
        if known is None and re.fullmatch(r"\d{1,3}%", part.text):  # else its shape was refused
            problems.append(_problem(file, part, f"'share' is {part.text}; it must be from 0% to 100%"))
    if isinstance(span, Scalar):
        try:
            per_ns = parse_duration(span.text)
        except ValueError as error:
            if not any((p.line, p.column) == (span.line, span.column) for p in problems):
                problems.append(_problem(file, span, str(error)))
        else:
            if not MIN_PER_NS <= per_ns <= MAX_PER_NS:
                hint = "10m is usual: as long as it takes somebody to look"
                problems.append(_problem(file, span, f"'per' is {span.text}; it must be from 1s to 24h", hint))
    return Limits(contained, per_ns, share), flood


def _problem(file: str, node: Node, message: str, hint: str = "") -> Problem:
    return Problem(file, node.line, node.column, message, hint)
