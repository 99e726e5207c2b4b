"""Sets of literals as one automaton (Aho-Corasick), in time and states linear in their length.

A token's boundary is a NUL byte. So "equals" is the literal between two NULs, "starts with" has one before it, "ends
with" one after it, and the NUL that ends one argument begins the next: no state has to know which argument it is in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from killswitch.policy.automaton import NUL, Dfa, TooBig

BLANK = 0x20
DOT = 0x2E


@dataclass(frozen=True, slots=True)
class Literal:
    """``data`` anywhere in a token, or only at its start, or end, or being all of it. It holds no NUL."""

    data: bytes
    at_start: bool
    at_end: bool
    bits: int


class _Trie:
    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.bits = [0]

    def insert(self, node: int, symbols: Iterable[int], bits: int) -> None:
        for symbol in symbols:
            node = self.child(node, symbol)
        self.bits[node] |= bits

    def child(self, node: int, symbol: int) -> int:
        found = self.children[node].get(symbol)
        if found is None:
            found = self.children[node][symbol] = self.fresh()
        return found

    def fresh(self) -> int:
        self.children.append({})
        self.bits.append(0)
        return len(self.bits) - 1


def build(literals: Iterable[Literal], *, fold: bool, line: bool, limit: int, domains: bool = False) -> Dfa:
    """One automaton for all. Raises TooBig.

    ``fold``: ASCII letters compare without case (then the literals are in lower case). ``line``: the field is the
    command line, where the NUL between two arguments reads as a blank and nothing is known of the end. ``domains``: each
    literal begins with a dot, and the walk begins as if one had been read, so that a name is below itself.
    """
    wanted = list(literals)
    classes = _classes(wanted, fold)
    trie = _Trie()
    # Where a token starts: after a NUL; or, for a line, only where the walk starts, which no byte leads to.
    start = trie.fresh() if line else trie.child(0, classes[DOT if domains else NUL])
    for literal in wanted:
        symbols = [classes[byte] for byte in literal.data]
        if literal.at_end:
            symbols.append(classes[NUL])
        trie.insert(start if literal.at_start else 0, symbols, literal.bits)
    if len(trie.bits) > 4 * limit:
        raise TooBig(limit)
    dfa = _automaton(trie, classes, start)
    return blank_at_nul(dfa, classes) if line else dfa


def _classes(literals: list[Literal], fold: bool) -> bytes:
    """Class 0 is every byte that no literal mentions; NUL and the blank have one of their own."""
    index: dict[int, int] = {NUL: 1, BLANK: 2}
    for literal in literals:
        for byte in literal.data:
            index.setdefault(byte, len(index) + 1)
    if len(index) == 256:  # then there is no other byte, and 256 classes do not fit beside class 0
        index = {byte: byte for byte in range(256)}
    classes = bytearray(index.get(byte, 0) for byte in range(256))
    if fold:
        classes[0x41:0x5B] = classes[0x61:0x7B]
    return bytes(classes)


def _automaton(trie: _Trie, classes: bytes, start: int) -> Dfa:
    width = max(classes) + 1
    rows: list[list[int]] = [[]] * len(trie.bits)
    bits = trie.bits
    failure = [0] * len(bits)
    leaves: dict[tuple[int, int], int] = {}
    rows[0] = [0] * width
    queue = [0] if start in trie.children[0].values() else [0, start]
    for node in queue:
        after = rows[failure[node]]  # a shorter suffix, so it was filled before
        row = list(after) if node else rows[0]
        for symbol, child in trie.children[node].items():
            failure[child] = after[symbol] if node else 0
            bits[child] |= bits[failure[child]]
            inner = trie.children[child] or child == start
            # All leaves that report the same and go on alike are one state.
            target = child if inner else leaves.setdefault((failure[child], bits[child]), child)
            row[symbol] = target
            if target == child:
                queue.append(child)
        rows[node] = row
    return _compact(classes, rows, bits, queue, start)


def _compact(classes: bytes, rows: list[list[int]], bits: list[int], used: list[int], start: int) -> Dfa:
    if len(used) == len(rows):
        return Dfa(classes, rows, bits, start)
    number = {node: i for i, node in enumerate(used)}
    kept = [[number[target] for target in rows[node]] for node in used]
    return Dfa(classes, kept, [bits[node] for node in used], number[start])


def blank_at_nul(dfa: Dfa, classes: bytes) -> Dfa:
    """Let a NUL read as the blank between two arguments, which it is only once another argument follows.

    So what the blank itself would report waits for the byte after it.
    """
    rows = [list(row) for row in dfa.rows]
    bits = list(dfa.bits)
    nul, blank = classes[NUL], classes[BLANK]
    late: dict[tuple[int, int], int] = {}

    def copy(state: int, reports: int) -> int:
        made = late.get((state, reports))
        if made is None:
            made = late[state, reports] = len(rows)
            rows.append(list(rows[state]))
            bits.append(reports)
        return made

    pending: dict[int, int] = {}
    for state in range(len(dfa.rows)):
        target = dfa.rows[state][blank]
        if dfa.bits[target]:
            if target not in pending:
                pending[target] = copy(target, 0)
            target = pending[target]
        rows[state][nul] = target
    # Copies were made of rows whose NUL was not set yet; then their targets report what was kept back.
    for target, waiting in pending.items():
        rows[waiting] = [copy(to, bits[to] | dfa.bits[target]) for to in rows[target]]
    for (state, _), made in late.items():
        if made not in pending.values():
            rows[made] = rows[state]
    return Dfa(classes, rows, bits, dfa.start)
