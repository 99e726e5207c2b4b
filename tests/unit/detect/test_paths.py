"""What is executed after a sample: bytes as a compiler placed them, at made-up addresses."""

from __future__ import annotations

from killswitch.detect.mix import disassembler, measure
from killswitch.detect.paths import Known, executed, target_of
from killswitch.machinecode import CodeBlock

ROTATE = bytes.fromhex("48d3c2")  # rol rdx, cl
LATER = bytes.fromhex("4883c001")  # add rax, 1
END = bytes.fromhex("4883f818")  # cmp rax, 24
AGAIN = bytes.fromhex("75f3")  # jne to the rotation, 13 bytes before the end of the loop
AFTER = bytes.fromhex("4531f6") * 20  # xor r14d, r14d
LOOP = ROTATE + LATER + END + AGAIN
AT = 0x402350
INSIDE = len(ROTATE + LATER)  # where the samples are: at the comparison


def names(block: CodeBlock, *others: CodeBlock) -> list[str]:
    engine = disassembler("x86_64")
    assert engine is not None
    return [mnemonic for _, _, mnemonic, _ in executed(engine[0], block, Known([block, *others]), 12)]


def sampled(offset: int, before: bytes = b"") -> CodeBlock:
    return CodeBlock(AT + offset, 10, (LOOP + AFTER)[offset : offset + 64], "/tmp/x", before)


def test_the_end_of_a_loop_leads_back_to_its_beginning_where_another_sample_knows_it() -> None:
    assert names(sampled(INSIDE), sampled(0)) == ["cmp", "jne", *["rol", "add", "cmp", "jne"] * 2, "rol", "add"]


def test_and_where_its_own_surroundings_know_it() -> None:
    assert names(sampled(INSIDE, LOOP[:INSIDE])).count("rol") == 3


def test_where_nobody_knows_it_what_follows_is_taken() -> None:
    assert names(sampled(INSIDE)) == ["cmp", "jne", *["xor"] * 10]


def test_a_jump_ahead_is_not_followed() -> None:
    ahead = CodeBlock(AT, 10, bytes.fromhex("7402") + LATER * 15, "/tmp/x")
    assert names(ahead) == ["je", *["add"] * 11]


def test_a_loop_without_anything_in_it_ends() -> None:
    assert names(CodeBlock(AT, 10, bytes.fromhex("ebfe"), "/tmp/x")) == ["jmp"] * 12


def test_targets() -> None:
    assert target_of("jne", "0x402350") == target_of("b.ne", "#0x402350") == 0x402350
    assert target_of("cbz", "x0, #0x402350") == 0x402350
    for no_jump in (("call", "0x402350"), ("bl", "#0x402350"), ("test", "eax, 0x10"), ("jmp", "rax"), ("ret", "")):
        assert target_of(*no_jump) is None


def test_what_lies_at_an_address_is_that_of_the_sample_nearest_before_it() -> None:
    known = Known([CodeBlock(0x1000, 1, b"abcdefgh", ""), CodeBlock(0x1004, 1, b"efghijkl", "", b"cd")])
    assert known.at(0x1005) == b"fghijkl"
    assert known.at(0x1001) == b"bcdefgh"
    assert known.at(0xFFF) == known.at(0x100C) == b""


def test_a_rotation_at_the_beginning_of_a_short_loop_is_counted_wherever_it_is_sampled() -> None:
    blocks = tuple(sampled(offset) for offset in (0, 3, 7, 11))
    mix = measure("x86_64", blocks)
    assert mix is not None
    assert mix["rot"] > 0.2
