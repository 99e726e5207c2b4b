"""The score on code that real programs were seen running (``code/recorded.jsonl``), and on what speaks against it.

Each line there: 40 blocks that stand for all samples of one second or more, read from the process's memory. The last one
is no recording: programs generated with RandomX's published instruction frequencies, as its compiler would place them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.detect.hashing import Score, score
from killswitch.detect.intake import intake
from killswitch.machinecode import Code, CodeBlock

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "code/recorded.jsonl").read_text().splitlines()]
HASHING = [r["name"] for r in RECORDED if r["hashing"] and r["name"] != "sha256sum of a pipe"]
ORDINARY = [r["name"] for r in RECORDED if not r["hashing"]]


def recorded(name: str) -> Code:
    (r,) = (r for r in RECORDED if r["name"] == name)
    blocks = tuple(CodeBlock(int(a, 16), n, bytes.fromhex(code), mapping) for a, n, code, mapping in r["blocks"])
    return Code(0, 1, 10, 1, r["machine"], blocks, r["read_bytes"], r["read_calls"], r["cpu_ns"])


@pytest.mark.parametrize("name", HASHING)
def test_hashing_scores_high(name: str) -> None:
    found = score(recorded(name))
    assert found.value >= 0.7, found.told
    assert found.shape and found.reasons


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_work_scores_low(name: str) -> None:
    found = score(recorded(name))
    assert found.value < 0.4, found.told


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("sha256d in C", "arx"),
        ("openssl sha256, SHA instructions", "engine"),
        ("AES rounds and multiplications over 2 MiB", "hard_aes"),
        ("john bcrypt", "sbox"),
        ("programs made at run time with RandomX's frequencies", "virtual"),
    ],
)
def test_the_shape_is_named(name: str, shape: str) -> None:
    assert score(recorded(name)).shape == shape


def test_a_checksum_of_what_it_reads_is_not_hashing_for_its_own_sake() -> None:
    code = recorded("sha256sum of a pipe")
    found = score(code)
    assert found.value < 0.5
    assert any("it moves" in reason for reason in found.reasons)
    assert score(replace(code, read_bytes=0)).value >= 0.7  # the same code without the input


def test_input_counts_since_the_reading_before() -> None:
    code = recorded("sha256d in C")
    began = replace(code, read_bytes=10**9, cpu_ns=10**9)  # it has read its program, or its data, at the beginning
    later = replace(code, read_bytes=10**9, cpu_ns=5 * 10**9)
    assert score(later).value < 0.5
    assert score(later, began).value >= 0.7
    assert intake(later, began).rate == 0


def test_little_input_costs_nothing_and_more_costs_more() -> None:
    code = replace(recorded("sha256d in C"), cpu_ns=10**9)
    values = [score(replace(code, read_bytes=mb * 10**6)).value for mb in (0, 1, 10, 30, 60, 100, 1000)]
    assert values[0] == values[1] == values[2] >= 0.7
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.5


def test_time_in_the_kernel_counts_only_when_it_is_nearly_all() -> None:
    code = recorded("argon2id")
    assert score(code, kernel_share=0.43).value >= 0.7  # as measured, with 64 MiB
    assert score(code, kernel_share=0.95).value == 0


def test_run_time_code_of_a_file_is_no_virtual_machine() -> None:
    code = recorded("programs made at run time with RandomX's frequencies")
    named = tuple(replace(b, mapping="/usr/lib/libnumbers.so") for b in code.blocks)
    assert score(replace(code, blocks=named)).value < 0.5


def test_a_third_of_ordinary_work_beside_it_hides_nothing() -> None:
    """Samples in the loop around the hash, in the allocator, in a decoy."""
    miner, decoy = recorded("sha256d in C"), recorded("gzip -9")
    total = sum(b.samples for b in miner.blocks)
    weight = total / 2 / sum(b.samples for b in decoy.blocks)
    both = miner.blocks + tuple(replace(b, samples=max(1, round(b.samples * weight))) for b in decoy.blocks)
    assert score(replace(miner, blocks=both)).value >= 0.7


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64", ""])
def test_nothing_to_judge_is_said_and_scores_nothing(machine: str) -> None:
    found = score(replace(recorded("gzip -9"), machine=machine, blocks=()))
    assert found == Score(0.0, "", (f"cannot be told from 0 blocks of {machine} code",))


@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 1000), st.binary(max_size=64)), max_size=30),
    st.sampled_from(["x86_64", "aarch64", "mips"]),
    st.floats(0, 1),
)
def test_any_bytes_give_a_score(blocks: list[tuple[int, int, bytes]], machine: str, kernel_share: float) -> None:
    code = Code(0, 1, 1, 1, machine, tuple(CodeBlock(*b, "") for b in blocks), 0, 0, 0)
    assert 0 <= score(code, kernel_share=kernel_share).value <= 1


def test_the_disassembler_is_not_loaded_before_it_is_needed() -> None:
    """It costs the idle daemon memory."""
    probe = "import sys, killswitch.engine; sys.exit('capstone' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


@pytest.mark.parametrize("name", [n for n in HASHING if "-O0" not in n])
def test_who_hashes_mixes_for_most_of_the_time(name: str) -> None:
    assert score(recorded(name)).mixing >= 0.4


@pytest.mark.parametrize("hash_", ["openssl sha256, SHA instructions", "openssl sha256, AVX", "openssl sha3-256"])
def test_an_interpreter_around_hashes_hashes_and_mostly_does_not_mix(hash_: str) -> None:
    """As measured of Python around hashlib: the score is that of a hash, a fifth of the time is the hash's."""
    inside, around = recorded(hash_), recorded("python")
    weight = 3 * sum(b.samples for b in inside.blocks) / sum(b.samples for b in around.blocks)
    both = inside.blocks + tuple(replace(b, samples=max(1, round(b.samples * weight))) for b in around.blocks)
    found = score(replace(inside, blocks=both))
    assert found.value >= 0.7, found.told
    assert 0.05 < found.mixing < 0.3
