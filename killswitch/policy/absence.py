"""What a policy says of the daemon's absence: ``on_daemon_loss`` and ``daemon_grace``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from killswitch.commands import Mode
from killswitch.errors import Problem
from killswitch.policy.duration import parse_duration
from killswitch.policy.model import DAEMON_GRACE_NS, MIN_DAEMON_GRACE_NS, OnDaemonLoss, Policy
from killswitch.policy.source import Map, Node, Scalar

MAX_DAEMON_GRACE_NS = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Absence:
    """What all policies of one workload come to."""

    grace_ms: int = 0  # 0 = it may go on without a daemon for ever
    keep: bool = False  # what was cut off meanwhile stays cut off when a daemon is back


def absence(policies: Iterable[Policy]) -> Absence:
    """The strictest of them: the shortest grace, and kept if any wants it kept. A policy that only monitors severs nobody."""
    severing = [p for p in policies if p.mode is Mode.ENFORCE and p.on_daemon_loss is not OnDaemonLoss.ALLOW]
    if not severing:
        return Absence()
    keep = any(p.on_daemon_loss is OnDaemonLoss.SEVER_AND_KEEP for p in severing)
    return Absence(min(p.daemon_grace_ns for p in severing) // 1_000_000, keep)


def read_absence(root: Map, file: str, problems: list[Problem]) -> tuple[OnDaemonLoss, int]:
    """(on_daemon_loss, daemon_grace in ns) of a policy's tree; what is wrong with them goes to ``problems``."""
    asked, grace = root.get("on_daemon_loss"), root.get("daemon_grace")
    what = (
        OnDaemonLoss(asked.text)
        if isinstance(asked, Scalar) and asked.text in tuple(OnDaemonLoss)
        else OnDaemonLoss.ALLOW
    )
    if not isinstance(grace, Scalar):
        return what, DAEMON_GRACE_NS
    if what is OnDaemonLoss.ALLOW:
        hint = "say on_daemon_loss: sever, or leave 'daemon_grace' out"
        problems.append(_problem(file, grace, "'daemon_grace' has no sense without 'on_daemon_loss'", hint))
    try:
        grace_ns = parse_duration(grace.text)
    except ValueError as error:
        if not any((p.line, p.column) == (grace.line, grace.column) for p in problems):  # its shape was checked before
            problems.append(_problem(file, grace, str(error)))
        return what, DAEMON_GRACE_NS
    if not MIN_DAEMON_GRACE_NS <= grace_ns <= MAX_DAEMON_GRACE_NS:
        hint = "a restart or an upgrade takes a second or more, and must not cut anybody off"
        problems.append(_problem(file, grace, f"'daemon_grace' is {grace.text}; it must be from 3s to 24h", hint))
    return what, grace_ns


def _problem(file: str, node: Node, message: str, hint: str = "") -> Problem:
    return Problem(file, node.line, node.column, message, hint)
