from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.cli import human


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"), (-3, "0s"), (900e-9, "1µs"), (48e-6, "48µs"), (0.9996e-3, "1ms"), (0.0123, "12.3ms"),
        (0.25, "250ms"),
        (0.9999, "1.0s"), (1, "1.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.7, "1m00s"), (61, "1m01s"), (3600, "1h00m"),
        (7325, "2h02m"), (86400, "1d00h"), (90061, "1d01h"), (86400 * 400, "400d00h"),
    ],
)  # fmt: skip
def test_duration(seconds: float, said: str) -> None:
    assert human.duration(seconds) == said


@given(st.floats(min_value=0, max_value=8e8, allow_nan=False))
def test_a_duration_is_short(seconds: float) -> None:
    assert len(human.duration(seconds)) <= 8


def test_age_counts_whole_seconds_and_says_when_it_does_not_know() -> None:
    assert human.age(100.0, 161.9) == "1m01s"
    assert human.age(100.0, 99.0) == "0s"  # a clock that was set back
    assert human.age(0.0, 161.0) == "-"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (61 << 20, "61.0 MiB"),
        (999 << 30, "999 GiB"),
        (3 << 50, "3072 TiB"),
    ],
)
def test_size(count: int, said: str) -> None:
    assert human.size(count) == said


def test_plural() -> None:
    assert human.plural(1, "process", "processes") == "1 process"
    assert human.plural(1200, "process", "processes") == "1,200 processes"
    assert human.plural(0, "file") == "0 files"
