"""Policies into what judges them: automata, predicate bits and clauses for the kernel, and programs for the daemon."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from killswitch.commands import MAX_CLAUSES, Clause, Mode, Response
from killswitch.errors import PolicyError, Problem
from killswitch.policy import clauses, holding, matcher
from killswitch.policy.atoms import NO_BIT, WIRE_FIELDS, Atoms, predicates
from killswitch.policy.automaton import TOO_BIG
from killswitch.policy.clauses import Formula, Term, TooManyClauses
from killswitch.policy.compiled import Compiled, CompiledRule, Program
from killswitch.policy.fields import FIELDS, INSPECTED
from killswitch.policy.inode import os_inode
from killswitch.policy.model import Policy, Predicate, Rule
from killswitch.policy.programs import Recogniser

NO_CLAUSE = f"all {MAX_CLAUSES} clauses of the kernel are taken"
NO_ROOM = (NO_BIT, NO_CLAUSE, TOO_BIG)  # why a rule is left to the daemon that the kernel could judge
LATE = "is judged by the daemon and not in the kernel, so that what it forbids may begin or leave before that is found"
LESS = "put fewer values into the lists of the rules, or have fewer rules"
IN_KERNEL = ("exec", "wire")  # events whose rules the data plane itself can judge
MAX_POLICIES = 64  # bits in a workload's policy set


def compile_policies(
    policies: Sequence[Policy], *, inode_of: Callable[[str], tuple[int, int] | None] = os_inode
) -> Compiled:
    """Compile all at once: they share tables. Raises PolicyError with all problems; what cannot be judged in the kernel is none.

    ``inode_of`` says which file a path of ``file.inode_of`` is, now. The result's ``generation`` is 0.
    """
    problems = _problems(policies)
    if problems:
        raise PolicyError(problems)
    numbered = [(index, policy, rule) for index, policy in enumerate(policies) for rule in policy.rules]
    in_kernel = [(policy, rule) for _, policy, rule in numbered if rule.on in IN_KERNEL and not _inspects(rule)]
    atoms = Atoms()
    try:
        recogniser = Recogniser(program for policy in policies for program in policy.programs)
        # Bits first to the rules that the kernel itself enforces.
        atoms.add(
            (rule.condition for policy, rule in sorted(in_kernel, key=lambda pair: not enforcing(*pair))),
            later=(rule.condition for _, _, rule in numbered if _inspects(rule)),
        )
        tables = atoms.build(inode_of)
    except ValueError as error:
        raise PolicyError([Problem(policies[0].file, 1, 1, str(error))]) from None
    rules: list[CompiledRule] = []
    programs: list[Program] = []
    enforced: dict[str, list[Clause]] = {on: [] for on in IN_KERNEL}
    opened = holding.Opened(atoms.gate, recognises=bool(recogniser))
    problems = []
    late: list[str] = []
    for index, policy, rule in numbered:
        formula = atoms.formula(rule.condition) if rule.on in IN_KERNEL else clauses.judged_whole(rule.condition)
        formula = clauses.cheapest_first(formula)
        made, why = _terms(formula)
        if rule.on == "wire" and not all(term.value & atoms.seen_bits for term in made):
            problems.append(Problem(policy.file, max(rule.line, 1), 1, f"rule '{rule.id}': {NOTHING_SEEN}"))
        if enforcing(policy, rule) and not why:
            if sum(map(len, enforced.values())) + len(made) > MAX_CLAUSES:
                why = NO_CLAUSE
            else:
                enforced[rule.on].extend(_clauses(made, policy, index, rule, len(rules)))
        opened.add(policy, index, rule, () if enforcing(policy, rule) and not why else made)
        tier = (
            4
            if rule.for_ns or rule.on in ("cpu", "finding")
            else 3
            if rule.on not in IN_KERNEL or why
            else TIER[rule.on]
        )
        if enforcing(policy, rule) and any(cause in why for cause in NO_ROOM):
            late.append(f"{policy.file}:{max(rule.line, 1)}: rule '{rule.id}' {LATE}: {why}; {LESS}")
        used = frozenset(p.field for p in predicates(rule.condition))
        rules.append(CompiledRule(policy, index, rule, tier, used, _reason(rule, why)))
        programs.append(Program(made, formula if clauses.opaque(formula) or made == _OPEN else None))
    if problems:
        raise PolicyError(problems)
    files, missing = _files((rule for _, _, rule in numbered if rule.on not in IN_KERNEL), inode_of)
    return Compiled(
        policies=tuple(policies),
        rules=tuple(rules),
        tables=dataclasses.replace(
            tables,
            clauses=tuple(enforced["exec"]),
            wire_clauses=tuple(enforced["wire"]),
            told_bits=atoms.seen_bits,
            hold_clauses=opened.clauses(MAX_CLAUSES - sum(map(len, enforced.values()))),
        ),
        programs=tuple(programs),
        args_bits=atoms.args_bits,
        ssh_bits=atoms.ssh_bits,
        ssh_gate=atoms.gate,
        ssh_means=atoms.ssh_means,
        recogniser=recogniser,
        warnings=tuple(late)
        + tuple(
            f"file.inode_of: there is no {path} on this host (now)"
            for path in dict.fromkeys([*atoms.missing, *missing])
        ),
        files=files,
    )


def _inspects(rule: Rule) -> bool:
    """Whether it asks for what is found out after the program began."""
    return rule.on == "exec" and any(p.field in INSPECTED for p in predicates(rule.condition))


def _files(
    rules: Iterable[Rule], inode_of: Callable[[str], tuple[int, int] | None]
) -> tuple[dict[tuple[int, int], tuple[str, ...]], list[str]]:
    """What the daemon itself compares ``file.inode_of`` with: the files that are there now, and the paths of the others."""
    files: dict[tuple[int, int], tuple[str, ...]] = {}
    missing = []
    named = (p for rule in rules for p in predicates(rule.condition) if p.field == "file.inode_of")
    for path in dict.fromkeys(str(value) for predicate in named for value in predicate.values):
        file = inode_of(path)
        if file is None:
            missing.append(path)
        else:
            files[file] = (*files.get(file, ()), path)
    return files, missing


def enforcing(policy: Policy, rule: Rule) -> bool:
    """Whether the kernel is to act on this rule by itself."""
    return (
        policy.mode is Mode.ENFORCE and not rule.for_ns and bool(_ACTS.get(rule.on, _NONE).intersection(rule.response))
    )


_NONE: frozenset[Response] = frozenset()
_ACTS = {  # what the data plane can do about an event by itself; from a packet no process can be killed
    "exec": frozenset({Response.KILL_PROCESS, Response.SEVER, Response.DENY}),
    "wire": frozenset({Response.DENY, Response.SEVER}),
}
TIER = {"exec": 1, "wire": 2}
NOTHING_SEEN = (
    "it could match without anything seen on the wire: every way to match needs a wire.sent, wire.received, "
    "dns.question.name or tls.client.server_name that holds"
)
_OPEN = (Term(0, 0),)


def _terms(formula: Formula) -> tuple[tuple[Term, ...], str]:
    """The terms that decide, or at least pre-filter, and why they only pre-filter."""
    reasons = dict.fromkeys(found.why for found in clauses.opaque(formula))
    try:
        return clauses.terms(formula), "; ".join(reasons)
    except TooManyClauses as why:
        return _OPEN, "; ".join([*reasons, str(why)])


def _reason(rule: Rule, why: str) -> str:
    if rule.for_ns:
        return "must hold for some time: judged over windows"
    if rule.on == "cpu":
        return "CPU use is sampled over windows"
    if rule.on == "finding":
        return "findings of the workload are added up over time"
    if rule.on not in IN_KERNEL:
        return f"the daemon judges {rule.on} events"
    return f"judged in tier 3: {why}" if why else ""


def _clauses(made: Sequence[Term], policy: Policy, index: int, rule: Rule, number: int) -> list[Clause]:
    does = _ACTS[rule.on].intersection(rule.response)
    kill, sever, deny = (r in does for r in (Response.KILL_PROCESS, Response.SEVER, Response.DENY))
    return [Clause(term.mask, term.value, index, number, kill, sever, deny) for term in made]


def _problems(policies: Sequence[Policy]) -> list[Problem]:
    problems = []
    for number, policy in enumerate(policies):
        if number >= MAX_POLICIES:
            problems.append(
                Problem(policy.file, 1, 1, f"there are more than {MAX_POLICIES} policies", "put rules together")
            )
        for rule in policy.rules:
            for predicate in predicates(rule.condition):
                wrong = _wrong(predicate)
                if wrong:
                    problems.append(Problem(policy.file, max(rule.line, 1), 1, f"rule '{rule.id}': {wrong}"))
    return problems


def _wrong(predicate: Predicate) -> str:
    field = FIELDS.get(predicate.field)
    if field is None:
        return f"there is no field '{predicate.field}'"
    if not predicate.values:
        return f"'{predicate.field}' is compared with nothing"
    if field.kind == "derived":
        fits = predicate.op == "match" or (predicate.op == "exists" and predicate.field == "ssh.forward")
        return "" if fits else f"'{predicate.field}' cannot be compared by '{predicate.op}'"
    try:
        matcher.check(predicate)
        if predicate.field in WIRE_FIELDS and matcher.wants_end(predicate):
            return f"'{predicate.field}' is judged as it comes: where it ends is not known"
    except ValueError as error:
        return str(error)
    return ""
