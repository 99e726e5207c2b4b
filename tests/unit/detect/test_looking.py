"""What code says beside its classes: by how much it rotates, which data it uses, which loop it is in. And any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.detect.hashing import Score, hash_table, score
from killswitch.detect.mix import Mix, disassembler, loop_around, measure, refers_to, rotated_by
from killswitch.machinecode import Code, CodeBlock, Source, Surroundings


@pytest.mark.parametrize(
    ("mnemonic", "operands", "by"),
    [
        ("rol", "eax, 7", (32, 7)),
        ("ror", "eax, 7", (32, 25)),
        ("rol", "r10d, 5", (32, 5)),
        ("rol", "rcx, 0x15", (64, 21)),
        ("rorx", "eax, ecx, 6", (32, 26)),
        ("rorx", "rax, qword ptr [rsp + 8], 0xe", (64, 50)),
        ("shld", "rax, rax, 3", (64, 3)),
        ("rol", "eax, cl", None),
        ("rol", "eax", (32, 1)),
        ("pslld", "xmm0, 7", (32, 7)),
        ("vprold", "zmm0, zmm1, 0x10", (32, 16)),
        ("vprorq", "ymm0, ymm1, 24", (64, 40)),
        ("psllw", "xmm0, 3", None),
        ("ror", "w0, w1, #6", (32, 26)),
        ("extr", "x0, x1, x1, #0x3f", (64, 1)),
        ("eor", "w0, w1, w2, ror #7", (32, 25)),
    ],
)
def test_by_how_much_it_rotates(mnemonic: str, operands: str, by: tuple[int, int] | None) -> None:
    assert rotated_by(mnemonic, operands) == by


@pytest.mark.parametrize(
    ("operands", "address"),
    [
        ("rax, [rip + 0x1234]", 0x401234),
        ("eax, dword ptr [rip - 0x10]", 0x3FFFF0),
        ("eax, dword ptr [rax*4 + 0x4a5b60]", 0x4A5B60),
        ("eax, dword ptr [rsp + 0x20]", 0),
        ("eax, 7", 0),
    ],
)
def test_which_data_it_uses(operands: str, address: int) -> None:
    assert refers_to(0x400000, operands) == address


def block(before: str, code: str, after: str = "", *, samples: int = 90, address: int = 0x401000) -> CodeBlock:
    return CodeBlock(address, samples, bytes.fromhex(code), "/x", bytes.fromhex(before), bytes.fromhex(after))


# rol rcx, 13; xor rcx, rdi; add rdi, rcx, eight times; then, where the sample falls: cmp rbx, r12; jne to the first of them; ret
ROUND = "48c1c10d" + "4831f9" + "4801cf"
BACK = "4c39e3" + "75ab" + "c3"


def test_the_loop_around_a_sample_that_waits_is_what_is_judged() -> None:
    """Found at the compare, behind the load that it waits for: what follows there is not the hash."""
    waiting = block(ROUND * 8, BACK)
    engine = disassembler("x86_64")
    assert engine is not None
    loop = loop_around(engine[0], waiting)
    assert [m for _, _, m, _ in loop[:3]] == ["rol", "xor", "add"] and len(loop) == 26
    mix = measure("x86_64", (waiting,))
    assert mix is not None and mix["rot"] > 0.3
    without = measure("x86_64", (CodeBlock(0x401000, 90, bytes.fromhex(BACK), "/x"),))
    assert without is not None and without["rot"] == 0


def test_a_short_loop_is_part_of_the_one_around_it() -> None:
    # the same, and before its end a loop of three instructions
    outer = block(ROUND * 8 + "4883c010", "4839e8" + "75f7" + "4c39e3" + "75a2" + "c3")
    engine = disassembler("x86_64")
    assert engine is not None
    loop = loop_around(engine[0], outer)
    assert len(loop) == 29 and loop[0][2] == "rol"


def test_where_no_loop_is_seen_what_follows_counts() -> None:
    straight = block("90" * 64, ROUND * 6)
    mix = measure("x86_64", (straight,))
    assert mix is not None and mix["rot"] == pytest.approx(1 / 3)


def mix_of(rotations: dict[tuple[int, int], float], **shares: float) -> Mix:
    return Mix({"rot": sum(rotations.values()), "xor": 0.1, **shares}, 100, 0.0, rotations, ())


@pytest.mark.parametrize(
    ("rotations", "name"),
    [
        ({(64, 13): 0.03, (64, 32): 0.03, (64, 16): 0.03, (64, 17): 0.03, (64, 21): 0.03}, "SipHash"),
        ({(64, 24): 0.05}, "a small fast generator"),
        ({(64, 45): 0.05, (64, 7): 0.01}, "xoroshiro or xoshiro"),
        ({(64, 32): 0.03, (64, 40): 0.03, (64, 48): 0.03, (64, 1): 0.03}, ""),  # BLAKE2b
        (
            {(32, 26): 0.03, (32, 21): 0.03, (32, 7): 0.03, (32, 30): 0.03, (32, 19): 0.03, (32, 10): 0.03},
            "",
        ),  # SHA-256
        ({(32, 16): 0.03, (32, 12): 0.03, (32, 8): 0.03, (32, 7): 0.03}, ""),  # ChaCha20
        ({}, ""),
    ],
)
def test_whose_rotations_they_are(rotations: dict[tuple[int, int], float], name: str) -> None:
    assert hash_table(mix_of(rotations)) == name


def test_a_vector_rotation_is_two_shifts_that_add_up_to_the_width() -> None:
    rotation = bytes.fromhex("660f72f007" + "660f72d119" + "660ffec1") * 4  # pslld 7; psrld 25; paddd
    shifts = bytes.fromhex("660f72f001" + "660f72d101" + "660ffec1") * 4  # both by one: a bit board
    one, other = (measure("x86_64", (CodeBlock(0, 90, code, "/x"),)) for code in (rotation, shifts))
    assert one is not None and other is not None
    assert one["vrot"] == pytest.approx(1 / 3) and one.rotations == {(32, 7): pytest.approx(1 / 3)}
    assert other["vrot"] == 0


# What compilers make of four hashes on arm64, in the bytes that would be sampled: eor with a rotated operand, add, ror;
# bic and eor (Keccak); aese and aesmc; sha256h.
ARM = {
    "arx": "20 1c c2 4a 00 00 03 0b 41 1c 81 13 21 00 04 4a",
    "chi": "20 00 22 8a 21 00 02 ca 42 04 c1 93 63 00 24 8a",
    "engine": "20 48 28 4e 00 68 28 4e 20 1c 22 6e 20 84 e2 4e",
}


@pytest.mark.parametrize("shape", ARM)
def test_arm64_has_the_same_shapes(shape: str) -> None:
    blocks = tuple(CodeBlock(0x1000 * n, 10, bytes.fromhex(ARM[shape]) * 3, "/x") for n in range(9))
    found = score(Code(0, 1, 1, 1, "aarch64", blocks, 0, 0, 10**9))
    assert found.shape == shape and found.value >= 0.7, found.told


def test_arm64_ordinary_code_scores_nothing() -> None:
    # ldr x1, [x0], #8; cmp x1, x2; b.eq; add x3, x3, #1; b
    plain = bytes.fromhex("018440f8" + "3f0002eb" + "60000054" + "63040091" + "fcffff17") * 3
    blocks = tuple(CodeBlock(0x1000 * n, 10, plain, "/x") for n in range(9))
    assert score(Code(0, 1, 1, 1, "aarch64", blocks, 0, 0, 10**9)).value < 0.2


KINDS = st.sampled_from(["file", "mapped", "pipe", "socket", "zero", "device", "?"])
BYTES = st.binary(max_size=64)
BLOCKS = st.lists(
    st.builds(
        CodeBlock, st.integers(0, 2**64 - 1), st.integers(0, 10**6), BYTES, st.sampled_from(["", "?", "/x"]),
        st.binary(max_size=1024), st.binary(max_size=1024),
    ),
    max_size=12,
)  # fmt: skip
COUNT = st.integers(0, 2**63)
AROUND = st.builds(
    Surroundings, COUNT, COUNT, COUNT, COUNT, COUNT,
    st.lists(st.builds(Source, KINDS, COUNT, COUNT)).map(tuple),
    st.booleans(), COUNT, st.integers(-20, 19), COUNT, COUNT, st.booleans(),
)  # fmt: skip


@settings(deadline=None)
@given(BLOCKS, st.lists(st.binary(max_size=64), max_size=8), AROUND, AROUND, st.sampled_from(["x86_64", "aarch64"]))
def test_any_bytes_are_judged(
    blocks: list[CodeBlock], data: list[bytes], around: Surroundings, before: Surroundings, machine: str
) -> None:
    code = Code(2, 1, 1, 1, machine, tuple(blocks), 10**9, 0, 2 * 10**9, tuple(data), around)
    earlier = Code(1, 1, 1, 1, machine, (), 10**8, 0, 10**9, (), before)
    found = score(code, earlier, kernel_share=0.5)
    assert isinstance(found, Score) and 0 <= found.value <= 1
    assert len(found.told) < 1000


@pytest.mark.parametrize("filling", [b"\x00", b"\x90", b"\xeb\xfe", b"\x75\x80", b"\x66", b"\xf3\x0f", b"\xff" * 3])
def test_hostile_fillings_come_to_an_end(filling: bytes) -> None:
    """Endless prefixes, jumps to themselves, loops in loops: bounded by instructions, not by what they mean."""
    raw = filling * 2048
    blocks = tuple(CodeBlock(0x10000 + n * 7, 10, raw[:64], "", raw[:1024], raw[:1024]) for n in range(96))
    assert 0 <= score(Code(0, 1, 1, 1, "x86_64", blocks, 0, 0, 10**9)).value <= 1
