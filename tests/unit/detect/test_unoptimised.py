"""Code of compilers that do not optimise: rotations written out, variables kept in the frame."""

from __future__ import annotations

import pytest

from killswitch.detect.mix import Mix, disassembler, measure
from killswitch.detect.unoptimised import by_variable, certainty, overhead, written_out
from killswitch.machinecode import CodeBlock

LOAD = "8b45f8"  # mov eax, [rbp - 8]
STORE = "8945f8"  # mov [rbp - 8], eax
WIDEN = "4863c0"  # movsxd rax, eax
SCALE = "48c1e002"  # shl rax, 2
BASE = "488d4dc0"  # lea rcx, [rbp - 64]
SUM = "4801c1"  # add rcx, rax
XOR = "31d0"  # xor eax, edx
LEFT_7, RIGHT_25, OR = "c1e007", "c1ea19", "09d0"  # shl eax, 7; shr edx, 25; or eax, edx
LEFT_8, RIGHT_24 = "c1e008", "c1ea18"
LEFT_BY, RIGHT_BY = "48d3e0", "48d3ea"  # shl rax, cl; shr rdx, cl


def listing(*code: str) -> list[tuple[int, int, str, str]]:
    engine = disassembler("x86_64")
    assert engine is not None
    return list(engine[0](bytes.fromhex("".join(code)), 0x1000))


def mix(*code: str) -> Mix:
    found = measure("x86_64", (CodeBlock(0x1000, 100, bytes.fromhex("".join(code)), "/tmp/x"),))
    assert found is not None
    return found


def test_what_keeps_and_finds_variables_is_overhead() -> None:
    assert overhead(listing(LOAD, WIDEN, SCALE, BASE, SUM, XOR, SUM, STORE)) == {0, 1, 2, 3, 4, 7}
    assert (
        overhead(listing(XOR, LEFT_7, RIGHT_25, OR, "48c1e020", "8b07")) == frozenset()
    )  # shl rax, 32; mov eax, [rdi]


@pytest.mark.parametrize(("share", "sure"), [(0.0, 0.0), (0.2, 0.0), (0.31, 0.5), (0.4, 1.0), (0.9, 1.0)])
def test_a_few_spills_are_everybodys(share: float, sure: float) -> None:
    assert certainty(share) == pytest.approx(sure)


def test_overhead_dilutes_nothing() -> None:
    assert mix(LOAD, LOAD, WIDEN, SCALE, BASE, SUM, STORE, LOAD, STORE, XOR)["xor"] == pytest.approx(1.0)
    assert mix("8b07", "8b07", "8b07", XOR)["xor"] == pytest.approx(0.25)  # memory that is not the frame is work


def test_two_shifts_that_add_up_to_the_width_are_a_rotation() -> None:
    found = mix(LOAD, LEFT_7, RIGHT_25, OR, XOR)
    assert found["rot"] > 0
    assert list(found.rotations) == [(32, 7)]
    assert mix(LOAD, LEFT_7, RIGHT_24, OR, XOR)["rot"] == 0


def test_shifts_by_whole_bytes_alone_swap_bytes() -> None:
    assert mix(LEFT_8, RIGHT_24, OR)["rot"] == 0
    both = mix(LEFT_8, RIGHT_24, OR, LEFT_7, RIGHT_25, OR)
    assert set(both.rotations) == {(32, 8), (32, 7)}


def test_a_value_that_is_widened_is_not_turned() -> None:
    assert written_out({("left", 64, 32): 5.0, ("right", 64, 32): 5.0}) == {}


def test_halves_that_samples_met_unequally_often_count_with_their_mean_but_no_half_makes_the_other() -> None:
    assert written_out({("left", 32, 7): 3.0, ("right", 32, 7): 5.0}) == {(32, 7): 4.0}
    assert written_out({("left", 32, 7): 10.0, ("right", 32, 7): 0.5}) == {(32, 7): 1.0}
    assert written_out({("left", 32, 7): 10.0}) == {}


def test_a_rotation_by_a_variable_is_both_shifts_and_an_or() -> None:
    assert by_variable(listing(LEFT_BY, RIGHT_BY, "4809d0")) == 1
    assert by_variable(listing(LEFT_BY, "4809d0")) == by_variable(listing(RIGHT_BY, LEFT_BY)) == 0
    assert by_variable(listing(LEFT_BY, *[LOAD] * 9, RIGHT_BY, "4809d0")) == 0


def test_xor_with_all_ones_is_a_not() -> None:
    found = mix("83f0ff", "4883f0ff", XOR)  # xor eax, -1; xor rax, -1; xor eax, edx
    assert found["andn"] == pytest.approx(2 / 3)
    assert found["xor"] == pytest.approx(1 / 3)
