"""Rows of one table, measured in turns so that a slow minute of the machine falls on all variants alike."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import scene
from tests.rig.build import program


@dataclass(frozen=True, slots=True)
class Row:
    group: str
    name: str
    figure: str  # as it is shown: "×1.04", "12.3 ms"
    target: str = ""  # what was promised, "" = nothing
    reached: bool | None = None  # None = no target
    note: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the same work. ``around`` is entered before it and left after it, outside the measured time."""

    name: str
    around: Callable[[], AbstractContextManager[Path | None]]  # gives the cgroup to run in, None = where we are


def run_in(cgroup: Path | None, *, name: str, args: Sequence[str]) -> float:
    """Run a program of the rig, inside ``cgroup`` from its first instruction, and read the number that it prints."""
    enter = scene.entering(cgroup) if cgroup is not None else None
    done = subprocess.run([program(name), *args], capture_output=True, text=True, preexec_fn=enter, check=True)
    return float(done.stdout)


def in_turns(variants: Sequence[Variant], work: Callable[[Path | None], float], rounds: int) -> dict[str, list[float]]:
    """``work`` under each variant, ``rounds`` times around, every other round backwards: drift falls on all alike."""
    results: dict[str, list[float]] = {v.name: [] for v in variants}
    for turn in range(rounds):
        for variant in variants if turn % 2 == 0 else list(reversed(variants)):
            with variant.around() as cgroup:
                results[variant.name].append(work(cgroup))
    return results


def ratio(results: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """The median of the ratios round by round: both sides of each were measured within seconds of one another."""
    return statistics.median(a / b for a, b in zip(results[name], results[base], strict=True))


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least ``share`` (0..1) of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 10000) * len(ordered) // 10000) - 1)]
