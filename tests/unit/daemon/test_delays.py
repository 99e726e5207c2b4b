"""How long programs wait to be judged, as percentiles."""

from __future__ import annotations

import pytest

from killswitch.daemon.delays import Last


def kept(*ms: float, size: int = 1000) -> Last:
    last = Last(size)
    for value in ms:
        last.add(int(value * 1e6))
    return last


@pytest.mark.parametrize(
    ("values", "p50", "p99"),
    [
        ((), 0.0, 0.0),
        ((3.0,), 3.0, 3.0),
        ((4.0, 1.0), 1.0, 4.0),
        (tuple(range(1, 101)), 50.0, 99.0),
        (tuple(range(1, 201)), 100.0, 198.0),
    ],
)
def test_percentiles_are_values_that_were_seen(values: tuple[float, ...], p50: float, p99: float) -> None:
    assert kept(*values).percentiles() == (p50, p99)


def test_only_the_last_are_kept() -> None:
    assert kept(*range(100), *[7.0] * 10, size=10).percentiles() == (7.0, 7.0)
