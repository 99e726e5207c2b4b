"""Classes of instructions, by the disassembler's own output for hand-assembled bytes."""

from __future__ import annotations

import pytest

from killswitch.detect.mix import disassembler, measure
from killswitch.machinecode import CodeBlock


def classes(machine: str, code: str) -> tuple[str, ...]:
    engine = disassembler(machine)
    assert engine is not None
    decode, classify = engine
    ((_, size, mnemonic, operands),) = decode(bytes.fromhex(code), 0x1000)
    assert size == len(bytes.fromhex(code)), mnemonic
    return tuple(classify(mnemonic, operands))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("41c1c205", {"rot"}),  # rol r10d, 5
        ("c4e37bf0c00b", {"rot"}),  # rorx eax, eax, 11
        ("4531ca", {"xor"}),  # xor r10d, r9d
        ("31c0", set()),  # xor eax, eax: zero
        ("660fefc0", set()),  # pxor xmm0, xmm0: zero
        ("660fefc1", {"xor", "vxor", "vector"}),  # pxor xmm0, xmm1
        ("0f57c1", {"xor", "vxor", "vector"}),  # xorps xmm0, xmm1
        ("33048540000000", {"xor", "table_xor"}),  # xor eax, [rax*4 + 64]
        ("03048540000000", {"add", "table_add"}),  # add eax, [rax*4 + 64]
        ("0fb6c0", set()),  # movzx eax, al
        ("0f38cbca", {"sha"}),  # sha256rnds2 xmm1, xmm2
        ("660f38dcc1", {"aes"}),  # aesenc xmm0, xmm1
        ("660f3a44c100", {"clmul"}),  # pclmulqdq xmm0, xmm1, 0
        ("660f72f007", {"vleft", "vshift", "vector"}),  # pslld xmm0, 7
        ("660f72d019", {"vright", "vshift", "vector"}),  # psrld xmm0, 25
        ("660ffec1", {"vadd", "vector"}),  # paddd xmm0, xmm1
        ("660fdfc1", {"vandn", "vlogic", "vector"}),  # pandn xmm0, xmm1
        ("0f55c1", {"vandn", "vlogic", "vector"}),  # andnps xmm0, xmm1
        ("660f58c1", {"fp", "packed_double"}),  # addpd xmm0, xmm1
        ("f20f59c1", {"fp"}),  # mulsd xmm0, xmm1
        ("c4e2f5b8c2", {"fp"}),  # vfmadd231pd ymm0, ymm1, ymm2
        ("660f70c031", {"shuffle", "vector"}),  # pshufd xmm0, xmm0, 0x31
        ("480fafc3", {"mul"}),  # imul rax, rbx
        ("7402", {"jump"}),  # je
        ("f3c3", {"jump"}),  # repz ret
    ],
)
def test_x86(code: str, expected: set[str]) -> None:
    assert set(classes("x86_64", code)) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("20188213", {"rot"}),  # extr w0, w1, w2, #6
        ("2000024a", {"xor"}),  # eor w0, w1, w2
        ("201cc24a", {"xor", "rot"}),  # eor w0, w1, w2, ror #7
        ("2000020b", {"add"}),  # add w0, w1, w2
        ("2000220a", {"andn", "logic"}),  # bic w0, w1, w2
        ("2040025e", {"sha"}),  # sha256h q0, q1, v2.4s
        ("2048284e", {"aes", "vector"}),  # aese v0.16b, v1.16b
        ("201c226e", {"xor", "vxor", "vector"}),  # eor v0.16b, v1.16b, v2.16b
        ("20d4624e", {"fp", "packed_double", "vector"}),  # fadd v0.2d, v1.2d, v2.2d
        ("c0035fd6", {"jump"}),  # ret
        ("207c029b", {"mul"}),  # mul x0, x1, x2
    ],
)
def test_arm64(code: str, expected: set[str]) -> None:
    assert set(classes("aarch64", code)) == expected


def test_shares_are_of_instructions_weighed_by_samples() -> None:
    rotates = CodeBlock(0x1000, 30, bytes.fromhex("41c1c205" * 12), "/bin/x")  # rol, twelve times
    jumps = CodeBlock(0x2000, 10, bytes.fromhex("7400" * 12), "")
    mix = measure("x86_64", (rotates, jumps))
    assert mix is not None
    assert mix["rot"] == pytest.approx(0.75)
    assert mix["jump"] == pytest.approx(0.25)
    assert mix.anonymous == pytest.approx(0.25)
    assert mix.samples == 40


def test_too_few_samples_say_nothing() -> None:
    assert measure("x86_64", (CodeBlock(0, 7, b"\x90" * 64, ""),)) is None
    assert measure("x86_64", (CodeBlock(0, 100, b"", ""),)) is None
