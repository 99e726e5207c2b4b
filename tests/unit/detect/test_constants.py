"""Constants against the standards' own printed values, and where they count."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.detect.constants import known, named


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SHA-256", (0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xC67178F2)),  # FIPS 180-4, section 4.2.2: first three, last
        ("SHA-512", (0xD728AE22, 0x23EF65CD, 0x4A475817)),  # section 4.2.3
        ("SHA-2 or BLAKE2 start values", (0x6A09E667, 0xF3BCC908, 0x137E2179)),  # section 5.3
        ("MD5", (0xD76AA478, 0xE8C7B756, 0xEB86D391)),  # RFC 1321
        ("Keccak", (0x80008081, 0x8000808B)),  # FIPS 202, rounds 17 and 24
        ("Salsa20 or ChaCha", (0x61707865, 0x79622D32)),
        ("AES", (0xC66363A5, 0xA56363C6, 0x7B777C63)),  # Te0[0], and the S-box's beginning
        ("SM3", (0x79CC4519, 0x9D8A7A87)),
    ],
)
def test_they_are_the_published_ones(name: str, words: tuple[int, ...]) -> None:
    assert set(words) <= known()[name]


def k256(count: int) -> bytes:
    """As the running Python's OpenSSL has them is not to be seen: the first of FIPS 180-4."""
    return struct.pack(
        "<8I", 0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5
    )[: 4 * count]


def test_immediate_operands_in_hot_code_name_the_algorithm() -> None:
    # lea eax, [rbx + rcx + 0x428a2f98] and the next constant
    code = (bytes.fromhex("8d840b") + k256(1), bytes.fromhex("05") + k256(2)[4:])
    assert named(code, ()) == ("SHA-256",)
    assert named(code[:1], ()) == (), "one word may be chance"


def test_a_table_that_the_code_refers_to_names_it_too() -> None:
    assert named((), (k256(8),)) == ("SHA-256",)
    assert named((), (k256(3),)) == ()


def test_random_bytes_name_nothing() -> None:
    noise = hashlib.shake_128(b"noise").digest(1 << 20)
    assert named([noise[i : i + 64] for i in range(0, 6400, 64)], [noise]) == ()


@given(st.lists(st.binary(max_size=64), max_size=20), st.lists(st.binary(max_size=300), max_size=5))
def test_any_bytes_will_do(code: list[bytes], data: list[bytes]) -> None:
    assert set(named(code, data)) <= set(known())
