"""Every predicate about one text of an exec event, as one automaton; and which of them had to be left out, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce

from killswitch.policy import hostnames, literals, matcher, regex, wildcard
from killswitch.policy.automaton import Dfa, TooBig, end_at_nul, minimise, pass_over_nul, prune, union
from killswitch.policy.model import Predicate
from killswitch.policy.nfa import ANY, Nfa, determinise

PATTERN_STATES = 512  # of one predicate by itself
NOTHING = Dfa(bytes(256), [[0]], [0], 0)
END_UNKNOWN = "the walk over the arguments does not know which NUL is the last: the end of the command line"

TOKEN, LINE, DOMAIN = "token", "line", "domain"  # what a literal is part of

Atoms = Mapping[int, Predicate]  # predicate bit (as a mask) -> predicate


FINISH = {"arguments": prune, "token": end_at_nul, "flow": pass_over_nul}


def build(atoms: Atoms, *, text: str, limit: int) -> tuple[Dfa, dict[int, str]]:
    """The automaton, of at most ``limit`` states, and the predicates that are not in it, with the reason.

    ``text``, of ``FINISH``: one token, and the walk is over at its NUL; the first bytes of a flow, where a NUL is a byte
    like others; or the arguments. A predicate on ``process.command_line`` reads the same arguments with their NULs as blanks.
    """
    parts = {bit: _split(predicate) for bit, predicate in atoms.items()}
    left_out = {bit: part.refused for bit, part in parts.items() if part.refused}
    while True:
        kept = {bit: part for bit, part in parts.items() if bit not in left_out}
        together, crowded = _merge(kept, limit // 2)
        left_out |= crowded
        kept = {bit: part for bit, part in kept.items() if bit not in crowded}
        try:
            dfa = reduce(lambda one, other: union(one, other, limit), [*_literals(kept, limit), *together] or [NOTHING])
            dfa = FINISH[text](dfa)
            if len(dfa.rows) > limit:
                raise TooBig(limit)
            return dfa, left_out
        except TooBig as why:
            left_out[max(kept, key=lambda bit: kept[bit].weight)] = _crowded(why)


@dataclass(frozen=True, slots=True)
class _Part:
    """A predicate taken apart: its literals share one automaton with everyone's, its patterns have one of their own."""

    literals: tuple[tuple[literals.Literal, bool, str], ...] = ()  # with ``cased``, and what they are part of
    pattern: Dfa | None = None  # reports bit 1
    refused: str = ""
    weight: int = field(default=0)  # what it costs: patterns before literals, states before length


@lru_cache(maxsize=1024)  # a reload compiles mostly what it has compiled before
def _split(predicate: Predicate) -> _Part:
    if predicate.op == "domain":
        below = (b"." + hostnames.domain(str(value)).encode() for value in predicate.values)
        found = tuple((literals.Literal(name, False, True, 1), False, DOMAIN) for name in below)
        return _Part(found, weight=sum(len(literal.data) + 1 for literal, _, _ in found))
    line = predicate.field == "process.command_line"
    plain: list[tuple[literals.Literal, bool, str]] = []
    patterns: list[str] = []
    for value in map(str, predicate.values):
        glob = wildcard.parse(value, predicate.op) if predicate.op not in ("re", "exists") else None
        literal = glob.literal if glob is not None else None
        if glob is None or literal is None or (line and not literal and not glob.at_end):
            patterns.append(value)  # (on a line, what is in every text must not wait for the byte after a NUL)
        elif line and glob.at_end:
            return _Part(refused=END_UNKNOWN)
        elif b"\0" not in literal:  # no text of a process holds a NUL
            at_start = glob.at_start and (bool(literal) or glob.at_end)
            text = literal if predicate.cased else literal.lower()
            plain.append((literals.Literal(text, at_start, glob.at_end, 1), predicate.cased, LINE if line else TOKEN))
    length = sum(len(literal.data) + 1 for literal, _, _ in plain)
    if not patterns:
        return _Part(tuple(plain), weight=length)
    try:
        dfa = _pattern(predicate, tuple(patterns), line)
    except regex.NotRegular as why:
        return _Part(refused=f"it uses {why}")
    except TooBig as why:
        return _Part(refused=str(why))
    if dfa is None:
        return _Part(refused=END_UNKNOWN)
    return _Part(tuple(plain), dfa, weight=(len(dfa.rows) << 20) + length)


def _pattern(predicate: Predicate, values: tuple[str, ...], line: bool) -> Dfa | None:
    """None when it would have to know the end of the line."""
    if predicate.op == "exists":
        nfa = Nfa(searching=True)
        nfa.accept(nfa.read(0, ANY))
    else:
        nfa = matcher.pattern_of(predicate, values)
    if line and matcher.looks_at_end(nfa):
        return None
    again = predicate.field.startswith("wire.")  # what begins a flow begins alike in all of a protocol's patterns
    return determinise(nfa, 1, line=line, limit=PATTERN_STATES, again=again)


def _literals(parts: Mapping[int, _Part], limit: int) -> list[Dfa]:
    sets: dict[tuple[bool, str], list[literals.Literal]] = {}
    for bit, part in parts.items():
        for literal, cased, kind in part.literals:
            wanted = literals.Literal(literal.data, literal.at_start, literal.at_end, bit)
            sets.setdefault((cased, kind), []).append(wanted)
    return [
        literals.build(wanted, fold=not cased, line=kind == LINE, limit=limit, domains=kind == DOMAIN)
        for (cased, kind), wanted in sets.items()
    ]


def _merge(parts: Mapping[int, _Part], limit: int) -> tuple[list[Dfa], dict[int, str]]:
    """As many patterns as fit as one automaton, the smallest first, and those that do not fit.

    Patterns that must remember how far they came (``*a*b*``) multiply with each other, so there is an end to it.
    """
    together: Dfa | None = None
    crowded: dict[int, str] = {}
    patterns = [(bit, part.pattern) for bit, part in parts.items() if part.pattern is not None]
    for bit, dfa in sorted(patterns, key=lambda item: len(item[1].rows)):
        own = Dfa(dfa.classes, dfa.rows, [bit if bits else 0 for bits in dfa.bits], dfa.start)
        try:
            both = union(together, own, limit) if together else own
        except TooBig as why:
            crowded[bit] = _crowded(why)
        else:
            together = minimise(both) if len(both.rows) <= PATTERN_STATES else both
    return ([together] if together else []), crowded


def _crowded(why: TooBig) -> str:
    return f"beside the other predicates, {why}"
