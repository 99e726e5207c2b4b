"""What a policy says of programs that are not judged yet, and of the daemon's absence: ``hold``, ``on_daemon_loss`` and
``daemon_grace``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from killswitch.commands import Mode
from killswitch.errors import Problem
from killswitch.policy.duration import parse_duration
from killswitch.policy.model import DAEMON_GRACE_NS, MIN_DAEMON_GRACE_NS, Hold, OnDaemonLoss, Policy
from killswitch.policy.source import Map, Node, Scalar

MAX_DAEMON_GRACE_NS = 24 * 3600 * 1_000_000_000
_SEVERING = (OnDaemonLoss.SEVER, OnDaemonLoss.SEVER_AND_KEEP)


@dataclass(frozen=True, slots=True)
class Absence:
    """What all policies of one workload come to."""

    grace_ms: int = 0  # 0 = it may go on without a daemon for ever
    keep: bool = False  # what was cut off meanwhile stays cut off when a daemon is back
    hold: Hold = Hold.OFF
    lapse_ms: int = 0  # so long without a daemon, and nobody is held any more; 0 = for ever

    @property
    def holds(self) -> bool:
        return self.hold is not Hold.OFF


def absence(policies: Iterable[Policy]) -> Absence:
    """The strictest of them: the shortest grace, kept if any wants it kept, and held by the widest word for as long as any
    wants it held. A policy that only monitors severs and holds nobody."""
    enforced = [p for p in policies if p.mode is Mode.ENFORCE]
    severing = [p for p in enforced if p.on_daemon_loss in _SEVERING]
    holding = [p for p in enforced if p.hold is not Hold.OFF]
    grace_ns = min((p.daemon_grace_ns for p in severing), default=0)
    lapse_ns = 0
    if all(p.on_daemon_loss is OnDaemonLoss.ALLOW for p in holding):
        lapse_ns = max((p.daemon_grace_ns for p in holding), default=0)
    return Absence(
        grace_ns // 1_000_000,
        any(p.on_daemon_loss is OnDaemonLoss.SEVER_AND_KEEP for p in severing),
        max((p.hold for p in holding), key=tuple(Hold).index, default=Hold.OFF),
        lapse_ns // 1_000_000,
    )


def read_hold(root: Map) -> Hold:
    """What is wrong with it was found with the tree's shape."""
    asked = root.get("hold")
    return Hold(asked.text) if isinstance(asked, Scalar) and asked.text in tuple(Hold) else Hold.MATCHED


def read_absence(root: Map, file: str, problems: list[Problem], hold: Hold) -> tuple[OnDaemonLoss, int]:
    """(on_daemon_loss, daemon_grace in ns) of a policy's tree; what is wrong with them goes to ``problems``."""
    asked, grace = root.get("on_daemon_loss"), root.get("daemon_grace")
    what = (
        OnDaemonLoss(asked.text)
        if isinstance(asked, Scalar) and asked.text in tuple(OnDaemonLoss)
        else OnDaemonLoss.ALLOW
    )
    if what is OnDaemonLoss.HOLD and hold is Hold.OFF and asked is not None:
        hint = "say hold: all or hold: matched, or another word for on_daemon_loss"
        problems.append(_problem(file, asked, "'on_daemon_loss: hold' has no sense with 'hold: off'", hint))
    if not isinstance(grace, Scalar):
        return what, DAEMON_GRACE_NS
    if what is OnDaemonLoss.HOLD:
        hint = "held is who executes something, from the first moment on; leave 'daemon_grace' out"
        problems.append(_problem(file, grace, "'daemon_grace' has no sense with 'on_daemon_loss: hold'", hint))
    if what is OnDaemonLoss.ALLOW and hold is Hold.OFF:
        hint = "say on_daemon_loss: sever, or leave 'daemon_grace' out"
        problems.append(_problem(file, grace, "'daemon_grace' has no sense without 'on_daemon_loss' or 'hold'", hint))
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
