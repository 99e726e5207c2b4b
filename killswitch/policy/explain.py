"""``killswitch policy explain``: where each rule is judged, why not faster, and what that costs the tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from killswitch.commands import MAX_CLAUSES, MAX_STATES, Response
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.model import And, Expr, Not, Or, Policy, Predicate

TIERS = {
    1: "in the kernel, before the program's first instruction",
    3: "in the daemon, event by event",
    4: "in the daemon, over windows of time",
}
_BYTES_OF_STATE = 512


@dataclass(frozen=True, slots=True)
class ExplainedRule:
    policy: str
    rule: str
    title: str
    level: str
    on: str
    tier: int
    where: str  # the tier in words
    why: str  # why not a lower tier, "" = there is none
    condition: str  # with the names of ``match`` put in
    fields: tuple[str, ...]
    states: int  # of the automata, were it the only rule; rules share states, so the whole has fewer than the sum
    clauses: int  # in the kernel: how many (mask, value) pairs it makes there; 0 = the kernel does not act on it
    in_kernel: tuple[Response, ...]  # what the data plane does by itself, at once
    in_daemon: tuple[Response, ...]  # what the daemon does then
    place: str  # file:line


@dataclass(frozen=True, slots=True)
class Explained:
    rules: tuple[ExplainedRule, ...]
    states: int
    max_states: int
    clauses: int
    max_clauses: int
    warnings: tuple[str, ...]


def explain(policies: Sequence[Policy], compiled: Compiled | None = None) -> Explained:
    """Every rule of the policies, in their order. Raises PolicyError when they do not compile."""
    compiled = compiled or compile_policies(policies)
    clauses = (*compiled.tables.clauses, *compiled.tables.wire_clauses)
    owners = [clause.rule for clause in clauses]
    rules = []
    for number, one in enumerate(compiled.rules):
        alone = compile_policies([dataclasses.replace(one.policy, rules=(one.rule,))])
        acting = [clauses[i] for i, owner in enumerate(owners) if owner == number]
        in_kernel = tuple(
            response
            for response, does in (
                (Response.KILL_PROCESS, any(c.kill for c in acting)),
                (Response.DENY, any(c.deny for c in acting)),
                (Response.SEVER, any(c.sever for c in acting)),
            )
            if does
        )
        rules.append(
            ExplainedRule(
                policy=one.policy.name,
                rule=one.rule.id,
                title=one.rule.title,
                level=str(one.rule.level),
                on=one.rule.on,
                tier=one.tier,
                where=TIERS.get(one.tier, f"tier {one.tier}"),
                why=one.why,
                condition=told(one.rule.condition),
                fields=tuple(sorted(one.fields)),
                states=_states(alone),
                clauses=len(acting),
                in_kernel=in_kernel,
                in_daemon=tuple(r for r in one.rule.response if r not in in_kernel),
                place=f"{one.policy.file}:{one.rule.line}",
            )
        )
    return Explained(tuple(rules), _states(compiled), MAX_STATES, len(owners), MAX_CLAUSES, tuple(compiled.warnings))


def told(expr: Expr) -> str:
    """The condition in one line, as it is after every name and list has been put in; long lists are cut."""
    match expr:
        case Predicate():
            return _told_predicate(expr)
        case Not(part):
            return f"not {_bracketed(part)}"
        case And(parts):
            return " and ".join(map(_bracketed, parts))
        case Or(parts):
            return " or ".join(map(_bracketed, parts))


def _bracketed(expr: Expr) -> str:
    return f"({told(expr)})" if isinstance(expr, (And, Or)) else told(expr)


def _told_predicate(predicate: Predicate, shown: int = 4) -> str:
    op = {
        "match": "is",
        "gt": ">",
        "gte": ">=",
        "lt": "<",
        "lte": "<=",
        "cidr": "in",
        "domain": "below",
        "re": "fits",
    }.get(predicate.op, predicate.op)
    values = [str(v).lower() if isinstance(v, bool) else str(v) for v in predicate.values]
    more = f" … ({len(values)} values)" if len(values) > shown else ""
    joined = (" & " if predicate.all else " | ").join(values[:shown])
    return f"{predicate.field} {op} {joined}{more}{' (case matters)' if predicate.cased else ''}"


def _states(compiled: Compiled) -> int:
    return len(compiled.tables.rows) // _BYTES_OF_STATE
