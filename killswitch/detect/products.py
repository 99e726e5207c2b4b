"""Lanes of words multiplied by FNV's prime, as Ethash and its kin mix what they have read at random places.

They do nothing else: no rotation, no addition. A compiler writes the product as one instruction, or, where that is slow, as
shifts, sums and differences, which come to the factor exactly. Hash tables use FNV on single bytes or words, in one
register; on lanes, or straight from memory, it is a mixing function.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from killswitch.detect.paths import Instruction

PRIME = 0x01000193  # of 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/

_LANES = re.compile(r"^([xyz]mm\d+), ([xyz]mm\d+|0x[0-9a-f]+|\d+)(?:, ([xyz]mm\d+|0x[0-9a-f]+|\d+))?$")
_LOADED = re.compile(r"^([xyz]mm\d+), ")
_COPIES = ("movdqa", "movaps", "vmovdqa", "vmovdqa32", "vmovdqa64")
_IMMEDIATE = f", {PRIME:#x}"


class _Value(NamedTuple):
    origin: str  # the register as it was, and since when
    factor: int


def lanes_by_prime(listing: Sequence[Instruction]) -> int:
    """How many products of many words, or of a word in memory, by the prime there are."""
    found = 0
    prime_used = any(m == "imul" and o.endswith(_IMMEDIATE) for _, _, m, o in listing)
    values: dict[str, _Value] = {}
    for i, (_, _, mnemonic, operands) in enumerate(listing):
        if mnemonic == "imul":
            found += "ptr [" in operands and operands.endswith(_IMMEDIATE)
        elif mnemonic in ("pmulld", "vpmulld"):
            found += prime_used
        if not (parts := _LANES.match(operands)):
            if loaded := _LOADED.match(operands):  # from memory, or by whatever else: another value from here on
                values[loaded[1]] = _Value(f"{loaded[1]} {i}", 1)
            continue
        to, first, second = parts[1], parts[2], parts[3]
        if second is None and mnemonic not in _COPIES:
            first, second = to, first  # SSE: the first operand is the target, too
        result = _product(mnemonic, _of(values, first, i), _of(values, second, i) if second else None, second or "")
        if result is None:
            values[to] = _Value(f"{to} {i}", 1)
            continue
        values[to] = result
        found += result.factor == PRIME
    return found


def _of(values: dict[str, _Value], name: str, at: int) -> _Value | None:
    if "mm" not in name:
        return None
    if name not in values:
        values[name] = _Value(f"{name} {at}", 1)
    return values[name]


def _product(mnemonic: str, a: _Value | None, b: _Value | None, operand: str) -> _Value | None:
    """What the instruction leaves, if it is still a multiple of the same origin."""
    if a is None:
        return None
    if mnemonic in _COPIES:
        return a
    plain = mnemonic.removeprefix("v")
    if plain == "pslld" and b is None:
        return _Value(a.origin, a.factor << int(operand, 0) & 0xFFFFFFFF) if int(operand, 0) < 32 else None
    if plain in ("paddd", "psubd") and b is not None and a.origin == b.origin:
        return _Value(a.origin, (a.factor + (b.factor if plain == "paddd" else -b.factor)) & 0xFFFFFFFF)
    return None
