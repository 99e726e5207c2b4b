"""Rules that ask what a program is by its files, less what follows already from what was found out about it, and its names.

Of nearly every program the same is found out: that it is none which a policy knows by its content, and that no file
configures it. That, and what the program is called, decides most of these rules, whatever it is told. So it is worked
out once for each of the programs that come again and again, and what is left is asked each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from killswitch.events import Exec
from killswitch.facts import Facts
from killswitch.policy import matcher
from killswitch.policy.clauses import All, Const, Formula, Inverse, Opaque, Some
from killswitch.policy.decide import Decision, decision
from killswitch.policy.fields import reader, values_in
from killswitch.policy.model import Predicate

if TYPE_CHECKING:
    from killswitch.policy.compiled import CompiledRule, Program

K = TypeVar("K")
V = TypeVar("V")

MAX_FACTS = 32  # kinds of facts, and...
MAX_PROGRAMS = 512  # ...programs by their names, for which it is kept what is left
MAX_NAMES = 512  # bytes of names that are kept of a program; whoever has longer ones costs what every program would

Later = tuple["CompiledRule", "Program", Decision | None]
_Left = tuple[Later, Formula]  # and as a formula what is left of its program's
_OfFacts = tuple[tuple[str, ...], bool, bool, bool, bool, bool]
_OfProgram = tuple[_OfFacts, bytes, bytes]
_NAMES = frozenset({"process.name", "process.executable"})


def values_of(facts: Facts) -> dict[str, object]:
    """The fields of ``fields.INSPECTED``, each with its value."""
    return {
        "file.program": facts.programs,
        "file.hash.sha256": (facts.sha256,) if facts.sha256 else (),
        "ssh.config_unread": bool(facts.config_unread),
        "process.config": facts.config,
        "process.named_files": facts.named_files,
        "process.env": facts.environment,
    }


class Foregone:
    """Of one set of rules. May be asked from several threads: at worst something is worked out twice."""

    def __init__(self, rules: Iterable[tuple[CompiledRule, Program]]) -> None:
        self.rules = tuple(rules)
        self._by_facts: dict[_OfFacts, tuple[_Left, ...]] = {}
        self._by_program: dict[_OfProgram, tuple[Later, ...] | None] = {}  # None: it has come once

    def left(self, event: Exec, facts: Facts) -> tuple[Later, ...]:
        """The rules that may still match, in their order, each with what is left to be judged of it."""
        # Contents differ from program to program: of them it counts here only whether there are any.
        known = (
            facts.programs, bool(facts.config_unread),
            not facts.sha256, not facts.config, not facts.named_files, not facts.environment,
        )  # fmt: skip
        key = known, event.executable, event.filename
        if (left := self._by_program.get(key)) is not None:
            return left
        possible = self._of_facts(known, facts)
        # To work it out takes longer than to ask once: only for what has come before.
        worked_out = tuple(_decided(possible, event)) if key in self._by_program else None
        if len(event.executable) + len(event.filename) <= MAX_NAMES:
            _keep(self._by_program, MAX_PROGRAMS, key, worked_out)
        return tuple(later for later, _ in possible) if worked_out is None else worked_out

    def _of_facts(self, known: _OfFacts, facts: Facts) -> tuple[_Left, ...]:
        kept = self._by_facts.get(known)
        if kept is None:
            kept = tuple(_possible(self.rules, facts))
            _keep(self._by_facts, MAX_FACTS, known, kept)
        return kept


def _keep(kept: dict[K, V], most: int, key: K, value: V) -> None:
    if len(kept) >= most and key not in kept:
        kept.clear()  # what comes again is soon there again
    kept[key] = value


def _possible(rules: Iterable[tuple[CompiledRule, Program]], facts: Facts) -> Iterable[_Left]:
    """The rules that these facts, as far as they come again and again, do not exclude."""
    always = ("file.program", "ssh.config_unread")
    values = {name: value for name, value in values_of(facts).items() if not value or name in always}

    def judged(predicate: Predicate) -> bool | None:
        if predicate.field not in values:
            return None
        return matcher.judge_of(predicate)(values_in(predicate.field, values))

    for rule, program in rules:
        formula = given(program.formula or Const(True), judged)
        if formula != Const(False):
            yield _ready(rule, program, formula), formula


def _decided(rules: Iterable[_Left], event: Exec) -> Iterable[Later]:
    """Those of them that the program's names do not exclude, made ready to be asked."""

    def judged(predicate: Predicate) -> bool | None:
        if predicate.field not in _NAMES:
            return None
        return matcher.judge_of(predicate)(reader(predicate.field, Exec)(event, {}))

    for (rule, program, _), left in rules:
        formula = given(left, judged)
        if formula != Const(False):
            yield _ready(rule, program, formula)


def _ready(rule: CompiledRule, program: Program, left: Formula) -> Later:
    return rule, program, None if left == Const(True) else decision(left, Exec)


def given(formula: Formula, judged: Callable[[Predicate], bool | None]) -> Formula:
    """What is left of the formula where ``judged`` knows some of its predicates; None: it does not."""
    match formula:
        case Opaque(predicate, _):
            known = judged(predicate)
            return formula if known is None else Const(known)
        case Inverse(part):
            left = given(part, judged)
            return Const(not left.value) if isinstance(left, Const) else Inverse(left)
        case All(parts) | Some(parts):
            decides = isinstance(formula, Some)  # the value of a part that is that of the whole
            rest = []
            for part in parts:
                left = given(part, judged)
                if not isinstance(left, Const):
                    rest.append(left)
                elif left.value is decides:
                    return left
            if not rest:
                return Const(not decides)
            return rest[0] if len(rest) == 1 else type(formula)(tuple(rest))
    return formula
