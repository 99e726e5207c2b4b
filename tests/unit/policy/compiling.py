"""Short forms for the compiler's tests."""

from __future__ import annotations

from killswitch.commands import Level, Mode, Response
from killswitch.policy.model import Expr, Policy, Predicate, Rule


def where(
    field: str, *values: str | int | float | bool, op: str = "match", all: bool = False, cased: bool = False
) -> Predicate:
    return Predicate(field, op, values, all, cased)


def rule_of(
    condition: Expr,
    *,
    on: str = "exec",
    response: tuple[Response, ...] = (Response.KILL_PROCESS,),
    id: str = "r",
    for_ns: int = 0,
) -> Rule:
    return Rule(id, "title", Level.HIGH, on, condition, response, for_ns, line=3)


def policy_of(
    *rules: Rule, mode: Mode = Mode.ENFORCE, name: str = "p", workloads: tuple[str, ...] = ("/ks/**",)
) -> Policy:
    return Policy(name, 1, workloads, mode, rules, file=f"{name}.yaml")
