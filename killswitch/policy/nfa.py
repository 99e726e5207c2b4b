"""Nondeterministic automata (Thompson's construction) and the subset construction, for patterns that are no literals.

Patterns are over bytes. ``.`` and ``?`` are one byte, any but NUL; a workload that puts a line feed or a broken UTF-8
sequence into a path must not slip through between two characters. Case folds in ASCII only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cache

from killswitch.policy.automaton import Dfa, TooBig, minimise
from killswitch.policy.literals import BLANK

ANY = (1 << 256) - 2  # every byte but NUL
# One pattern may cost some tenth of a second, whatever it says: ``(a?){999}`` and ``(a|b)*a(a|b){20}`` are refused early.
MAX_NODES = 1500
MAX_WORK = 300_000  # nodes looked at while the subsets are made


def mask_of(data: bytes) -> int:
    mask = 0
    for byte in data:
        mask |= 1 << byte
    return mask


LETTERS = mask_of(bytes(range(0x41, 0x5B))), mask_of(bytes(range(0x61, 0x7B)))
WORD = LETTERS[0] | LETTERS[1] | mask_of(b"0123456789_")


def fold(mask: int) -> int:
    """The bytes of ``mask`` and their other ASCII case."""
    upper, lower = LETTERS
    return mask | (mask & upper) << 32 | (mask & lower) >> 32


class At(enum.Enum):
    """A condition on where the walk is; consumes nothing."""

    START = enum.auto()
    END = enum.auto()
    BOUNDARY = enum.auto()
    NO_BOUNDARY = enum.auto()


class _Before(enum.Enum):
    """What the walk has just read, as far as it matters."""

    NOTHING = enum.auto()
    WORD = enum.auto()
    OTHER = enum.auto()


class _Next(enum.Enum):
    WORD = enum.auto()
    OTHER = enum.auto()
    END = enum.auto()


@dataclass(slots=True)
class Nfa:
    """Node 0 is where a search begins, node 1 accepts. ``searching``: a match may begin anywhere in the token."""

    searching: bool
    empty: list[list[int]] = field(default_factory=lambda: [[], []])
    when: list[list[tuple[At, int]]] = field(default_factory=lambda: [[], []])
    reads: list[list[tuple[int, int]]] = field(default_factory=lambda: [[], []])  # (bytes as a mask, next node)

    def node(self) -> int:
        if len(self.empty) >= MAX_NODES:
            raise TooBig(MAX_NODES)
        self.empty.append([])
        self.when.append([])
        self.reads.append([])
        return len(self.empty) - 1

    def read(self, node: int, mask: int) -> int:
        made = self.node()
        self.reads[node].append((mask, made))
        return made

    def at(self, node: int, where: At) -> int:
        made = self.node()
        self.when[node].append((where, made))
        return made

    def loop(self, node: int, mask: int = ANY) -> int:
        """``mask*``"""
        made = self.node()
        self.empty[node].append(made)
        self.reads[made].append((mask, made))
        return made

    def fresh(self, node: int) -> int:
        """A node of its own after ``node``: so that what is built from it cannot leak into ``node``'s other ways on."""
        made = self.node()
        self.join(node, made)
        return made

    def join(self, node: int, other: int) -> None:
        self.empty[node].append(other)

    def accept(self, node: int) -> None:
        self.empty[node].append(1)


def determinise(nfa: Nfa, bits: int, *, line: bool, limit: int, again: bool = False) -> Dfa:
    """The minimal automaton that reports ``bits`` in every token (in the whole ``line``) in which the pattern is found.

    Raises TooBig beyond ``limit`` states. Once reported, a pattern need not be looked for any more, but may be: the
    construction goes on with whatever needs the fewest states. Or it goes on as if nothing had been found (``again``): that
    takes more states for one pattern, and far fewer for several that share their beginning and are united, because then no
    state has to know which of them have been found.
    """
    return _Subsets(nfa, line, limit, again).build(bits)


_State = tuple[int, _Before, bool, bool]  # set of nodes, what was read, reported on entry, report of a blank held back


class _Subsets:
    def __init__(self, nfa: Nfa, line: bool, limit: int, again: bool) -> None:
        self.nfa, self.line, self.limit, self.again = nfa, line, limit, again
        if nfa.searching:
            nfa.reads[0].append((ANY, 0))
        self.closures = [self._closure(node) for node in range(len(nfa.empty))]
        self.conditional = [node for node, edges in enumerate(nfa.when) if edges]
        kinds = {where for edges in nfa.when for where, _ in edges}
        self.words = 0  # the nodes for which it matters whether a word's byte was read before
        if kinds & {At.BOUNDARY, At.NO_BOUNDARY}:
            self.words = sum(1 << node for node in self.conditional)
        self.classes, self.samples = self._classes()
        self.rest = self.closures[0] if nfa.searching else 0
        self.work = 0

    def _closure(self, node: int) -> int:
        found, todo = 1 << node, [node]
        while todo:
            for target in self.nfa.empty[todo.pop()]:
                if not found >> target & 1:
                    found |= 1 << target
                    todo.append(target)
        return found

    def _classes(self) -> tuple[bytes, list[int]]:
        masks = {mask for edges in self.nfa.reads for mask, _ in edges}
        if self.words:
            masks.add(WORD)
        index: dict[tuple[bool, ...], int] = {}
        ordered = sorted(masks)
        classes = bytearray()
        samples: list[int] = []
        for byte in range(256):
            key = (byte == 0, *(bool(mask >> byte & 1) for mask in ordered))
            if key not in index:
                index[key] = len(index)
                samples.append(byte)
            classes.append(index[key])
        return bytes(classes), samples

    def build(self, bits: int) -> Dfa:
        start: _State = (self.closures[0], _Before.NOTHING, False, False)
        order, index = [start], {start: 0}
        rows: list[list[int]] = []
        # One node's step by one byte is the same in every set that holds it.
        self.step = cache(self._step)
        for state in order:
            row = []
            for byte in self.samples:
                target = self._next(state, byte, start)
                number = index.get(target)
                if number is None:
                    index[target] = number = len(order)
                    order.append(target)
                row.append(number)
            rows.append(row)
            self.work += state[0].bit_count() * len(self.samples)
            if len(order) > 2 * self.limit or self.work > MAX_WORK:
                raise TooBig(self.limit)
        made = minimise(Dfa(self.classes, rows, [bits if state[2] else 0 for state in order], 0))
        if len(made.rows) > self.limit:
            raise TooBig(self.limit)
        return made

    def _next(self, state: _State, byte: int, start: _State) -> _State:
        nodes, before, _, held = state
        ended = byte == 0 and not self.line
        read = BLANK if byte == 0 else byte
        word = bool(WORD >> read & 1)
        following = _Next.END if ended else _Next.WORD if word else _Next.OTHER
        nodes = self._resolve(nodes, before, following) if self.conditional else nodes
        found = held or bool(nodes >> 1 & 1)
        if ended:
            return (start[0], start[1], found, False)
        stepped = 0
        left = nodes
        while left:
            low = left & -left
            stepped |= self.step(low.bit_length() - 1, read)
            left ^= low
        completed = bool(stepped >> 1 & 1)
        if completed and not found and self.line and byte == 0:
            return (stepped & ~2, self._remember(stepped, word), False, True)
        if found or completed:
            stepped = stepped & ~2 if self.again else self.rest
        return (stepped, self._remember(stepped, word), found or completed, False)

    def _remember(self, nodes: int, word: bool) -> _Before:
        return _Before.WORD if word and nodes & self.words else _Before.OTHER

    def _step(self, node: int, byte: int) -> int:
        stepped = 0
        for mask, target in self.nfa.reads[node]:
            if mask >> byte & 1:
                stepped |= self.closures[target]
        return stepped

    def _resolve(self, nodes: int, before: _Before, following: _Next) -> int:
        """Add what is reached through conditions that hold between what was read and what comes next."""
        grown = True
        while grown:
            grown = False
            for node in self.conditional:
                if nodes >> node & 1:
                    for where, target in self.nfa.when[node]:
                        if self.closures[target] & ~nodes and _holds(where, before, following):
                            nodes |= self.closures[target]
                            grown = True
        return nodes


def _holds(where: At, before: _Before, following: _Next) -> bool:
    if where is At.START:
        return before is _Before.NOTHING
    if where is At.END:
        return following is _Next.END
    boundary = (before is _Before.WORD) != (following is _Next.WORD)
    return boundary is (where is At.BOUNDARY)
