"""Deterministic automata over bytes, and their packing into the data plane's table.

A ``Dfa`` reports along the walk: each state has the predicate bits that hold once it is entered. So many patterns share
one automaton, and a pattern that may begin anywhere needs no state that remembers "seen": what was reported is kept by
who walks. That is what keeps a hundred ``contains`` linear (Aho-Corasick) where "seen" states would multiply.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from killswitch.commands import ACCEPTS, MAX_STATES

NUL = 0
TOO_BIG = "its automaton needs more than"


class TooBig(Exception):
    """The automaton would need more states than it may have (``limit``): judge the predicate elsewhere."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{TOO_BIG} {limit} states")


@dataclass(frozen=True, slots=True, eq=False)
class Dfa:
    """``rows[state][classes[byte]]`` is the next state, ``bits[state]`` what entering it reports."""

    classes: bytes  # 256 bytes: the class of each byte; bytes of one class behave alike in every state
    rows: Sequence[Sequence[int]]
    bits: Sequence[int]
    start: int

    def walk(self, data: bytes) -> int:
        """The bits that were reported while walking ``data``."""
        state, seen = self.start, 0
        for byte in data:
            state = self.rows[state][self.classes[byte]]
            seen |= self.bits[state]
        return seen


def picker(indices: Sequence[int]) -> Callable[[Any], tuple[Any, ...]]:
    """``itemgetter`` that gives a tuple for one index, too."""
    if len(indices) == 1:
        only = indices[0]
        return lambda row: (row[only],)
    return itemgetter(*indices)


def joint_classes(one: bytes, other: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The coarsest classes that refine both: each byte's class, and which pair of classes each of them is."""
    index: dict[tuple[int, int], int] = {}
    classes = bytes(index.setdefault(pair, len(index)) for pair in zip(one, other, strict=True))
    return classes, list(index)


def union(one: Dfa, other: Dfa, limit: int) -> Dfa:
    """The automaton that walks both at once and reports what either reports. Raises TooBig."""
    classes, pairs = joint_classes(one.classes, other.classes)
    pick_one, pick_other = picker([a for a, _ in pairs]), picker([b for _, b in pairs])
    width = len(other.rows)
    scaled = [[target * width for target in row] for row in one.rows]
    order = [one.start * width + other.start]
    index = {order[0]: 0}
    rows: list[list[int]] = []
    for key in order:
        a, b = divmod(key, width)
        row = []
        for left, right in zip(pick_one(scaled[a]), pick_other(other.rows[b]), strict=True):
            target = left + right
            state = index.get(target)
            if state is None:
                index[target] = state = len(order)
                order.append(target)
            row.append(state)
        if len(order) > limit:
            raise TooBig(limit)
        rows.append(row)
    bits = [one.bits[key // width] | other.bits[key % width] for key in order]
    return Dfa(classes, rows, bits, 0)


def minimise(dfa: Dfa) -> Dfa:
    """The smallest automaton that reports the same (Moore's partition refinement: meant for some hundred states)."""
    numbers: dict[Hashable, int] = {}
    block = [numbers.setdefault(bits, len(numbers)) for bits in dfa.bits]
    count = len(numbers)
    while True:
        numbers = {}
        block = [
            numbers.setdefault((own, picker(row)(block) if row else ()), len(numbers))
            for own, row in zip(block, dfa.rows, strict=True)
        ]
        if len(numbers) == count:
            break
        count = len(numbers)
    rows: list[list[int]] = [[]] * count
    bits = [0] * count
    for state, own in enumerate(block):
        rows[own] = [block[target] for target in dfa.rows[state]]
        bits[own] = dfa.bits[state]
    return Dfa(dfa.classes, rows, bits, block[dfa.start])


def end_at_nul(dfa: Dfa) -> Dfa:
    """The automaton of a field that is one token: nothing that comes after its NUL matters, so the walk ends there.

    States from which nothing can be reported any more become state 0, so that the kernel stops walking as soon as no
    rule can match, which for most names is their second byte.
    """
    classes, pairs = joint_classes(dfa.classes, bytes([1] + [0] * 255))
    pick = picker([a for a, _ in pairs])
    nul = classes[NUL]
    leaves: dict[int, int] = {}
    rows: list[list[int]] = [[0] * len(pairs)]  # state 0: dead; the automaton's own states follow, then the leaves
    for row in dfa.rows:
        wide = [target + 1 for target in pick(row)]
        ended = dfa.bits[wide[nul] - 1]
        wide[nul] = leaves.setdefault(ended, len(dfa.rows) + 1 + len(leaves)) if ended else 0
        rows.append(wide)
    rows.extend([0] * len(pairs) for _ in leaves)
    return prune(Dfa(classes, rows, [0, *dfa.bits, *leaves], dfa.start + 1))


def pass_over_nul(dfa: Dfa) -> Dfa:
    """The automaton of what goes over a wire, where a NUL is a byte like others: it is read as the byte 1, for rules cannot
    spell it. (Lengths and addresses, as a proxy or a WebSocket has them before what it carries, hold NULs.)
    """
    classes, pairs = joint_classes(dfa.classes, bytes([1] + [0] * 255))
    pick = picker([a for a, _ in pairs])
    nul, one = classes[NUL], classes[1]
    rows = [list(pick(row)) for row in dfa.rows]
    for row in rows:
        row[nul] = row[one]
    return prune(Dfa(classes, rows, dfa.bits, dfa.start))


def prune(dfa: Dfa) -> Dfa:
    """Without the states that cannot be reached or can report nothing; state 0 of the result is dead."""
    reached = [dfa.start]
    seen = set(reached)
    for state in reached:
        fresh = set(dfa.rows[state]) - seen
        seen |= fresh
        reached.extend(sorted(fresh))
    before: dict[int, list[int]] = {state: [] for state in reached}
    for state in reached:
        for target in set(dfa.rows[state]):
            before[target].append(state)
    # Alive: some next state reports, or is alive. A reporting state itself may be a leaf, whose row is dead.
    todo = [state for state in reached if dfa.bits[state]]
    alive = set(todo)
    while todo:
        for state in before[todo.pop()]:
            if state not in alive:
                alive.add(state)
                todo.append(state)
    keep = [state for state in reached if state in alive]
    number = {state: i for i, state in enumerate(keep, start=1)}
    rows = [[0] * (max(dfa.classes) + 1)]
    rows.extend([number.get(target, 0) for target in dfa.rows[state]] for state in keep)
    return Dfa(dfa.classes, rows, [0, *(dfa.bits[state] for state in keep)], number.get(dfa.start, 0))


class TableBuilder:
    """Puts automata one after the other into the table that the data plane walks."""

    def __init__(self) -> None:
        self._rows: list[bytes] = [bytes(512)]
        self.accepts: dict[int, int] = {}

    @property
    def states(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> bytes:
        return b"".join(self._rows)

    def add(self, dfa: Dfa) -> int:
        """Append a pruned automaton and return its start state's row. Raises TooBig when the table is full."""
        base = self.states - 1
        if base + len(dfa.rows) > MAX_STATES:
            raise TooBig(MAX_STATES)
        encoded = [0]
        for state in range(1, len(dfa.rows)):
            bits = dfa.bits[state]
            if bits:
                self.accepts[base + state] = bits
            encoded.append(base + state | (ACCEPTS if bits else 0))
        pick = picker(dfa.classes)
        encode = encoded.__getitem__
        for row in dfa.rows[1:]:
            self._rows.append(array("H", pick(tuple(map(encode, row)))).tobytes())
        return base + dfa.start if dfa.start else 0
