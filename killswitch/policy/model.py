"""A policy as its author meant it: checked, but not yet compiled. Built by ``load``, read by ``compile``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from killswitch.commands import NO_GUARD, Act, Evidence, Guard, Level, Mode, Response
from killswitch.policy.limits import Limits, OnFlood
from killswitch.policy.programs import Program

DAEMON_GRACE_NS = 10_000_000_000
MIN_DAEMON_GRACE_NS = 3_000_000_000  # a restart takes one second on an idle host, and some on a crowded one


@dataclass(frozen=True, slots=True)
class Predicate:
    """One field compared with values; true when any value fits (every value with ``all``).

    ``op`` is one of ``match`` (Sigma's plain value: equal, ``*`` and ``?`` are wildcards), ``contains``, ``startswith``,
    ``endswith``, ``domain``, ``re``, ``cidr``, ``gt``, ``gte``, ``lt``, ``lte``, ``exists``. Text compares without case unless
    ``cased``. A list field (``process.args``) fits when one of its elements does.
    """

    field: str
    op: str
    values: tuple[str | int | float | bool, ...]
    all: bool = False
    cased: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    part: Expr


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Expr, ...]


Expr = Predicate | Not | And | Or


@dataclass(frozen=True, slots=True)
class FoundBefore:
    """One finding of a test's series, as far as the author says what it is; "" = not said."""

    after_ns: int  # since the one before
    rule: str = ""
    policy: str = ""
    act: str = ""
    evidence: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class InlineTest:
    """``tests:`` of a rule: an event given by its fields, or findings, and whether the rule is to match it (the last)."""

    event: Mapping[str, object]
    match: bool
    line: int
    column: int = 1
    findings: tuple[FoundBefore, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    title: str
    level: Level
    on: str  # one of schema.EVENTS
    condition: Expr  # the names in ``match`` already put in
    response: tuple[Response, ...]
    for_ns: int = 0
    timespan_ns: int = 0  # of ``on: finding``: how far back findings add up
    description: str = ""
    references: tuple[str, ...] = ()
    false_positives: tuple[str, ...] = ()
    tests: tuple[InlineTest, ...] = ()
    line: int = 0
    act: Act | None = None  # what a match is evidence of
    evidence: Evidence | None = None  # and of which kind


class OnDaemonLoss(StrEnum):
    """What becomes of a workload while no daemon is there (killed, stopped, starved) for longer than the grace."""

    ALLOW = "allow"  # it goes on, under the rules that the kernel judges; and nobody is held any more
    HOLD = "hold"  # what runs goes on; what is executed meanwhile is held until a daemon has judged it
    SEVER = "sever"  # the kernel cuts it off; a daemon that is back lets it go again
    SEVER_AND_KEEP = "sever_and_keep"  # it stays cut off until an operator releases it


class Hold(StrEnum):
    """Whose packets wait, from exec until the daemon has judged it."""

    OFF = "off"
    MATCHED = "matched"  # programs about which a rule is open that only the daemon can judge to its end
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    version: int
    workloads: tuple[str, ...]  # globs over cgroup v2 paths
    mode: Mode
    rules: tuple[Rule, ...]
    file: str = ""
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on_daemon_loss: OnDaemonLoss = OnDaemonLoss.ALLOW
    daemon_grace_ns: int = DAEMON_GRACE_NS
    hold: Hold = Hold.MATCHED
    guard: Guard = NO_GUARD  # what LSM programs refuse these workloads also while they are free
    programs: tuple[Program, ...] = ()  # what executables are by their content
    budget: Limits | None = None  # None: it says nothing of it
    on_flood: OnFlood = OnFlood.ALERT
