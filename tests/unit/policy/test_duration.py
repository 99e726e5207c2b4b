"""Durations of ``for:``."""

from __future__ import annotations

import pytest

from killswitch.policy.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("20s", 20_000_000_000),
        ("5m", 300_000_000_000),
        ("1h500ms", 3_600_500_000_000),
        ("1.5s", 1_500_000_000),
        ("0.3s", 300_000_000),
        ("1us", 1_000),
        ("7ns", 7),
        ("168h", 604_800_000_000_000),
    ],
)
def test_durations_are_exact(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["", "0s", "20", "s", "-5s", "5 s", "1d", "1s1s", "1s1m", "168h1ns", "1e3s", ".5s", "9" * 30 + "s"]
)
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"'.*' (is not a duration|must)"):
        parse_duration(text)


def test_a_missing_unit_is_named() -> None:
    with pytest.raises(ValueError, match="a number needs its unit"):
        parse_duration("20")
