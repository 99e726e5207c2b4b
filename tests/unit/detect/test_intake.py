"""What counts as data that is taken in, and what only looks like it."""

from __future__ import annotations

import pytest

from killswitch.detect.intake import distinct, intake
from killswitch.machinecode import Code, Source, Surroundings

S = 1_000_000_000
MB = 1_000_000
ZERO = Source("zero", 5, 0)
PIPE = Source("pipe", 9, 0)
SMALL = Source("file", 11, MB)
BIG = Source("file", 12, 10_000 * MB)


def code(cpu_s: float, read_mb: float = 0, **around: object) -> Code:
    return Code(0, 1, 10, 1, "x86_64", (), int(read_mb * MB), 0, int(cpu_s * S), (), Surroundings(**around))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("then", "now", "credited"),
    [
        ((BIG,), (BIG,), 400),  # a checksum of one big file
        ((PIPE,), (PIPE,), 400),
        ((), (), 400),  # opens what it reads, and closes it
        ((SMALL,), (Source("file", 13, MB),), 400),  # one small file after the other
        ((SMALL,), (SMALL,), 1),  # the same small file again and again
        ((ZERO,), (ZERO,), 0),
        ((ZERO, SMALL), (ZERO, SMALL), 1),
        ((Source("socket", 3, 0),), (Source("socket", 3, 0),), 400),
    ],
)
def test_what_400_MB_of_reads_are_worth(then: tuple[Source, ...], now: tuple[Source, ...], credited: float) -> None:
    found = intake(code(12, 500, sources=now), code(8, 100, sources=then))
    assert found.rate == pytest.approx(credited * MB / 4)
    assert found.decoy == pytest.approx((400 - credited) * MB / 4)


def test_a_mapped_file_counts_as_far_as_it_becomes_resident() -> None:
    mapped = (Source("mapped", 20, 8_000 * MB),)
    before = code(8, sources=mapped, faults=0, file_resident_bytes=100 * MB)
    assert intake(code(12, sources=mapped, faults=10**6, file_resident_bytes=500 * MB), before).rate == 100 * MB
    assert intake(code(12, sources=mapped, faults=10**6, file_resident_bytes=100 * MB), before).rate == 0


def test_files_that_are_mapped_one_after_the_other_count_by_their_faults() -> None:
    before = code(8, sources=(Source("mapped", 20, 50 * MB),))
    assert intake(code(12, sources=(Source("mapped", 21, 50 * MB),), faults=700), before).rate > 10 * MB


def test_faults_of_anonymous_memory_are_no_input() -> None:
    assert intake(code(12, faults=10**6), code(8)).rate == 0


def test_the_network_counts_for_who_holds_a_socket() -> None:
    assert intake(code(12, network_bytes=400 * MB), code(8)).rate == 0
    sockets = (Source("socket", 3, 0),)
    assert intake(code(12, sources=sockets, network_bytes=400 * MB), code(8, sources=sockets)).rate == 100 * MB


def test_what_is_written_counts_unless_there_is_nowhere_to_throw_it() -> None:
    assert intake(code(12, written_bytes=400 * MB), code(8)).rate == 100 * MB
    assert intake(code(12, written_bytes=400 * MB, discards=True), code(8)).rate == 0


def test_too_little_cpu_time_gives_no_rate() -> None:
    assert intake(code(0.05, 100), None).rate == 0


def test_without_an_earlier_reading_the_whole_life_counts() -> None:
    assert intake(code(2, 200), None).rate == 100 * MB
    assert intake(code(2, 200, sources=(ZERO,)), None).rate == 0
    assert distinct((PIPE, ZERO), None) is None
