"""Products by FNV's prime, as compilers write them."""

from __future__ import annotations

from killswitch.detect.hashing import best
from killswitch.detect.mix import disassembler, measure
from killswitch.detect.products import lanes_by_prime
from killswitch.machinecode import CodeBlock

LOAD = "660f6f08"  # movdqa xmm1, [rax]
COPY = "660f6fc1"  # movdqa xmm0, xmm1
SUM, DIFFERENCE = "660ffec1", "660ffac1"  # paddd xmm0, xmm1; psubd xmm0, xmm1
XOR, STORE = "660fefc6", "0f2940f0"  # pxor xmm0, xmm6; movaps [rax - 16], xmm0


def left(by: int) -> str:
    return f"660f72f0{by:02x}"  # pslld xmm0, by


# What gcc makes of four words times 0x01000193.
PRODUCT = (COPY, left(15), SUM, left(2), DIFFERENCE, left(3), SUM, left(2), SUM, left(2), DIFFERENCE)
OTHER = (COPY, left(15), SUM, left(2), DIFFERENCE, left(3), SUM, left(2), SUM, left(2), SUM)
BY_PRIME = "69d293010001"  # imul edx, edx, 0x1000193
FROM_MEMORY = "690793010001"  # imul eax, [rdi], 0x1000193


def count(*code: str) -> int:
    engine = disassembler("x86_64")
    assert engine is not None
    return lanes_by_prime(list(engine[0](bytes.fromhex("".join(code)), 0x1000)))


def test_shifts_and_sums_that_come_to_the_prime_are_a_product() -> None:
    assert count(LOAD, *PRODUCT, XOR, STORE) == 1
    assert count(LOAD, *PRODUCT, XOR, STORE, LOAD, *PRODUCT) == 2


def test_those_that_come_to_something_else_or_are_of_two_values_are_not() -> None:
    assert count(LOAD, *OTHER, XOR, STORE) == 0
    assert count(*PRODUCT[:4], LOAD, *PRODUCT[4:]) == 0
    assert count(*PRODUCT[:4], "660fefc9", *PRODUCT[4:]) == 0  # pxor xmm1, xmm1
    assert count(*PRODUCT[1:]) == 0  # xmm0 is no copy of xmm1


def test_avx_names_its_target() -> None:
    code = "c5f172f10f"  # vpslld xmm1, xmm1, 15: by that alone it is no product
    assert count(code) == 0
    # vpslld xmm0, xmm1, 15; vpaddd xmm0, xmm0, xmm1, and on with xmm0
    assert count("c5f972f10f", "c5f9fec1", *PRODUCT[3:]) == 1


def test_lanes_multiplied_at_once_count_beside_the_prime() -> None:
    at_once = "660f3840c1"  # pmulld xmm0, xmm1
    assert count(at_once) == 0  # by what is not known
    assert count(BY_PRIME, at_once) == 1


def test_a_hash_table_multiplies_in_a_register() -> None:
    assert count(BY_PRIME, "31c2", BY_PRIME) == 0
    assert count(FROM_MEMORY, "31c2", FROM_MEMORY) == 2


def test_the_shape_is_named() -> None:
    code = bytes.fromhex("".join((LOAD, *PRODUCT[:-1], DIFFERENCE, XOR)))
    mix = measure("x86_64", (CodeBlock(0x1000, 100, code[len(LOAD) // 2 :], "/tmp/x"),))
    assert mix is not None
    shape, value = best(mix)
    assert (shape, value) == ("fnv", 1.0)
