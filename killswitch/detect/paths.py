"""What is executed from a sampled address on: straight ahead, and back to the beginning of a loop at its end.

A short loop is met somewhere in its middle. Straight ahead lies its end and then code that is hardly ever executed; what is
executed next is its beginning. It is followed as far as some sample brought that code along.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from killswitch.machinecode import CodeBlock

Instruction = tuple[int, int, str, str]  # address, size, mnemonic, operands

_TARGET = re.compile(r"(?:^|, )#?0x([0-9a-f]+)$")
_CALLS = frozenset({"call", "bl", "test", "cmp", "bic", "bfi"})


def target_of(mnemonic: str, operands: str) -> int | None:
    """Where a jump to an address that it names goes; None for everything else, calls included."""
    if mnemonic[0] not in "jbct" or mnemonic in _CALLS:
        return None
    found = _TARGET.search(operands)
    return int(found[1], 16) if found else None


class Known:
    """The code that is known, by address."""

    def __init__(self, blocks: Iterable[CodeBlock]) -> None:
        regions = sorted((b.address - len(b.before), b.before + b.code + b.after) for b in blocks)
        self._starts = [start for start, _ in regions]
        self._regions = [code for _, code in regions]

    def at(self, address: int) -> bytes:
        """What lies there and behind it, of the samples that know of it the one that begins last; b"" = not known."""
        last = bisect_right(self._starts, address) - 1
        for i in range(last, max(last - 8, -1), -1):
            if address - self._starts[i] < len(self._regions[i]):
                return self._regions[i][address - self._starts[i] :]
        return b""


def executed(decode: Callable[..., Any], block: CodeBlock, known: Known, limit: int) -> Sequence[Instruction]:
    """At most ``limit`` instructions."""
    found: list[Instruction] = []
    code, address = block.code, block.address
    while code:
        raw, code = code, b""
        for instruction in decode(raw, address, limit - len(found)):
            found.append(instruction)
            target = target_of(*instruction[2:])
            if len(found) < limit and target is not None and target <= instruction[0] and (code := known.at(target)):
                address = target
                break
    return found
