"""What compilers that do not optimise write where others write one instruction: gcc and clang at -O0, tcc, debug builds.

They keep every variable in the frame and work every address out anew, so that half and more of what runs is neither the
algorithm's nor tells anything: moves to and from the frame, widening, scaling. And most of them (clang at -O0, tcc) write a
rotation out as it stands in the source: a shift to the left by n, one to the right by what is left of the width, and an or.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from killswitch.detect.paths import Instruction

# Share of the instructions that only keep and find variables: optimised code stays below, unoptimised is above.
LEAST, SURE = 0.22, 0.40
BYTES = 8  # shifts by whole bytes pack and swap them
PACKS = 4  # of rotations, at most so many by whole bytes for one that is not
NEAR = 9  # instructions between the two shifts of a rotation by a variable amount, and the or, at most

_FRAME = re.compile(r"\[(?:r[bs]p|sp|x29)(?:(?: [+-] |, #-?)(?:0x)?[0-9a-f]+)?\]")
_WIDENS = frozenset({"cdqe", "cdq", "cqo", "movsxd", "sxtw"})
_SCALED = re.compile(r"^r\w+, [123]$")  # shl rax, 3: an index becomes an offset
_MOVES = ("mov", "lea", "ldr", "ldur", "str", "stur")

Amount = tuple[int, int]  # (width, bits to the left)


def overhead(listing: Sequence[Instruction]) -> frozenset[int]:
    """Which of these (by place) only move a variable to or from the frame, or work out where it lies."""
    found: set[int] = set()
    scaled = 0
    for i, (_, _, mnemonic, operands) in enumerate(listing):
        if mnemonic in _WIDENS or (mnemonic.startswith(_MOVES) and _FRAME.search(operands)):
            found.add(i)
        elif mnemonic == "shl" and _SCALED.match(operands):
            scaled += 1
            found.add(i)
        elif scaled and mnemonic == "add":  # of base and offset
            scaled -= 1
            found.add(i)
    return frozenset(found)


def certainty(share: float) -> float:
    """That no optimiser has touched it (0..1), where ``share`` (0..1) of what is executed is overhead."""
    return min(1.0, max(0.0, (share - LEAST) / (SURE - LEAST)))


def by_variable(listing: Sequence[Instruction]) -> int:
    """How many rotations by an amount in a register are written out: both shifts and, behind them, the or."""
    left = right = -NEAR
    found = 0
    for i, (_, _, mnemonic, operands) in enumerate(listing):
        if operands.endswith(", cl"):
            left, right = (i, right) if mnemonic == "shl" else (left, i) if mnemonic == "shr" else (left, right)
        elif mnemonic == "or" and left >= 0 and right >= 0 and i - min(left, right) <= NEAR:
            found += 1
            left = right = -NEAR
    return found


def written_out(shifts: Mapping[tuple[str, int, int], float]) -> dict[Amount, float]:
    """Rotations as two shifts: (width, bits to the left) -> how many. ``shifts``: ("left" or "right", width, bits to the
    left; of a shift to the right, what is left of the width).

    Sampling meets the two halves unequally often; their mean is taken, and of a half that is hardly met nothing. Not
    counted: the halves of 64 bits, which is how a value is widened, and bytes, where nothing else is turned.
    """
    found: dict[Amount, float] = {}
    for (way, width, left), count in shifts.items():
        if way != "left" or 2 * left == 64:
            continue
        other = shifts.get(("right", width, left), 0.0)
        if other:
            found[width, left] = min((count + other) / 2, 2 * count, 2 * other)
    odd = sum(count for (_, left), count in found.items() if left % BYTES)
    even = sum(found.values()) - odd
    if even > PACKS * odd:
        return {by: count for by, count in found.items() if by[1] % BYTES}
    return found
