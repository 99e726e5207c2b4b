"""Policy tables for the tests, written by the rules of ``KernelTables`` and without the policy compiler."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from killswitch.commands import ACCEPTS, FIRST_FREE_BIT, Clause, Grammar, KernelTables


class Automaton:
    """A table under construction. State 0 is dead."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = [[0] * 256]
        self.accepts: dict[int, int] = {}

    def state(self, default: int = 0) -> int:
        self.rows.append([default] * 256)
        return len(self.rows) - 1

    def contains(self, word: bytes, bit: int) -> int:
        """Start state of a search for ``word`` anywhere in the field."""
        states = [self.state() for _ in range(len(word) + 1)]
        for at, state in enumerate(states):
            for byte in range(256):
                seen = word[:at] + bytes([byte])
                reached = next(n for n in range(min(len(word), len(seen)), -1, -1) if seen.endswith(word[:n]))
                self.rows[state][byte] = states[reached] | (ACCEPTS if reached == len(word) else 0)
        self.accepts[states[-1]] = 1 << bit
        return states[0]

    def equals(self, words: Iterable[bytes], bit: int) -> int:
        """Start state of a field that must be one of ``words`` as a whole (its NUL ends it)."""
        start = self.state()
        accepting = self.state()
        self.accepts[accepting] = 1 << bit
        for word in words:
            at = start
            for byte in word:
                self.rows[at][byte] = self.rows[at][byte] or self.state()
                at = self.rows[at][byte]
            self.rows[at][0] = accepting | ACCEPTS
        return start

    def packed(self) -> bytes:
        return b"".join(struct.pack("<256H", *row) for row in self.rows)


FIRST = FIRST_FREE_BIT


def clause(*bits: int, policy: int = 0, rule: int = 0, kill: bool = True, sever: bool = False) -> Clause:
    """Holds when all these bits are set."""
    mask = sum(1 << b for b in bits)
    return Clause(mask, mask, policy, rule, kill, sever)


def tables(
    automaton: Automaton,
    clauses: Iterable[Clause] = (),
    *,
    name: int = 0,
    path: int = 0,
    parent: int = 0,
    args: int = 0,
    grammars: Iterable[Grammar] = (),
    inodes: Iterable[tuple[int, int, int]] = (),
) -> KernelTables:
    return KernelTables(
        automaton.packed(), automaton.accepts, name, path, parent, args, tuple(grammars), tuple(clauses), tuple(inodes)
    )
