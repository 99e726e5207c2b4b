"""Round constants and tables of known hashes, as they lie in code and in the data that it uses. Most are computed, as their
standards define them.

They name the algorithm, and raise a score that the instruction mix gave. Alone they mean nothing: a library has them all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from math import isqrt, sin

IN_CODE = 2  # different words of an algorithm that must be immediate operands of the hot code …
IN_DATA = 4  # … or lie at addresses that it uses


def named(code: Sequence[bytes], data: Sequence[bytes]) -> tuple[str, ...]:
    """Algorithms whose constants are there, by name. ``code``: hot blocks; ``data``: as in ``machinecode.Code``."""
    words = known()
    found: dict[str, int] = {}
    immediate = {w for block in code for at in range(4) for w in _words(block[at:])}
    referred = {w for block in data for w in _words(block)}
    for name, table in words.items():
        if len(table & immediate) >= IN_CODE or len(table & referred) >= IN_DATA:
            found[name] = len(table & (immediate | referred))
    return tuple(sorted(found, key=lambda name: -found[name]))


def _words(raw: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"<{len(raw) // 4}I", raw)


@cache
def known() -> dict[str, frozenset[int]]:
    """Name → its constants as 32-bit words (a 64-bit constant is two)."""
    p = list(_primes(80))
    tables: dict[str, Sequence[int]] = {
        "SHA-256": [_root(n, 3, 32) for n in p[:64]],
        "SHA-512": [_root(n, 3, 64) & 0xFFFFFFFF for n in p[:80]],  # the upper halves are SHA-256's
        "SHA-2 or BLAKE2 start values": _halves(_root(n, 2, 64) for n in p[:8]),
        "SHA-1, MD4 or RIPEMD": (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6),
        "MD5": [int(abs(sin(i + 1)) * 2**32) for i in range(64)],
        "Keccak": _halves(_keccak()),
        "Salsa20 or ChaCha": struct.unpack("<4I", b"expand 32-byte k"),
        "AES": [*_aes_lookups(), *struct.unpack("<64I", _aes_box())],
        "SM3": [_left(c, i) for c, first in ((0x79CC4519, 0), (0x7A879D8A, 16)) for i in range(first, first + 16)],
        "BLAKE-256": (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89),
        "Skein": _halves([0x1BD11BDAA9FC1A22]),
    }
    return {name: frozenset(w for w in table if w.bit_count() >= 3) for name, table in tables.items()}


def _halves(wide: Iterator[int] | Sequence[int]) -> list[int]:
    return [half for w in wide for half in (w & 0xFFFFFFFF, w >> 32)]


def _left(word: int, by: int) -> int:
    return (word << by % 32 | word >> (32 - by % 32)) & 0xFFFFFFFF if by % 32 else word


def _primes(count: int) -> Iterator[int]:
    found: list[int] = []
    n = 2
    while len(found) < count:
        if all(n % q for q in found):
            found.append(n)
            yield n
        n += 1


def _root(n: int, degree: int, bits: int) -> int:
    """The first ``bits`` bits behind the point of a square or cube root: FIPS 180-4, sections 4.2 and 5.3."""
    wide = n << (degree * bits)
    if degree == 2:
        return isqrt(wide) & ((1 << bits) - 1)
    low, high = 0, 1 << (bits + 4)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= wide else (low, middle)
    return low & ((1 << bits) - 1)


def _keccak() -> Iterator[int]:
    """The 24 round constants: FIPS 202, algorithm 5."""
    register = 1
    for _ in range(24):
        constant = 0
        for j in range(7):
            constant |= (register & 1) << ((1 << j) - 1)
            register = (register << 1) ^ ((register >> 7) * 0x171)
        yield constant


@cache
def _aes_box() -> bytes:
    """The S-box: FIPS 197, section 5.1.1."""
    box = bytearray(256)
    p = q = 1
    while True:
        p = p ^ (p << 1 & 0xFF) ^ (0x1B if p & 0x80 else 0)  # times 3
        q ^= q << 1
        q ^= q << 2
        q = (q ^ q << 4) & 0xFF
        q ^= 0x09 if q & 0x80 else 0
        turned = q ^ _turn(q, 1) ^ _turn(q, 2) ^ _turn(q, 3) ^ _turn(q, 4)
        box[p] = turned ^ 0x63
        if p == 1:
            break
    box[0] = 0x63
    return bytes(box)


def _turn(byte: int, by: int) -> int:
    return (byte << by | byte >> (8 - by)) & 0xFF


def _aes_lookups() -> Iterator[int]:
    """The four tables of S-box and column mix in one, each in both byte orders; Grøstl and others have them, too."""
    for s in _aes_box():
        double = s << 1 ^ (0x11B if s & 0x80 else 0)
        column = bytes((double, s, s, double ^ s))
        for turn in range(4):
            turned = column[turn:] + column[:turn]
            yield from struct.unpack("<I", turned)
            yield from struct.unpack(">I", turned)
