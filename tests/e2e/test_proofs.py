"""The proofs of ``make proof``, a few rounds of each: they work, and nothing comes through. What takes time is left to them."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.proof import crashes, kills, storms
from benchmarks.proof.figures import Figure

LABEL = "ks-test"
SEED = 7  # two crashes of each kind at least


def held(figures: Iterable[Figure]) -> None:
    found = list(figures)
    assert found
    assert [f for f in found if not (f.held or f.timed)] == []


def test_nothing_leaves_after_a_kill() -> None:
    held(kills.nothing_leaves(12, label=LABEL))


def test_a_storm_of_forks_is_frozen() -> None:
    held(storms.frozen(3, 200, label=LABEL))


def test_restarts_upgrades_and_crashes() -> None:
    held(crashes.survived(5, 10, seed=SEED, label=LABEL))
