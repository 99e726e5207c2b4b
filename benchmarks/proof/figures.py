"""What a proof came to: a figure beside its limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.harness import percentile


@dataclass(frozen=True, slots=True)
class Figure:
    proof: str  # exec, wire, kills, …
    what: str
    tries: int
    figure: str  # as it is shown
    limit: str  # what was promised, "" = nothing
    held: bool
    note: str = ""
    timed: bool = False  # it says how long something took: on a busy host, longer


def count(proof: str, what: str, tries: int, found: int, wanted: int = 0, note: str = "") -> Figure:
    """Something that is counted, and has to be exactly so many."""
    return Figure(proof, what, tries, f"{found:,}", f"{wanted:,}", found == wanted, note)


def spread(proof: str, what: str, values: Sequence[float], limit: float | None, note: str = "") -> Figure:
    """Milliseconds, with a limit on the 99th percentile."""
    shown = ", ".join(f"{name} {percentile(values, share):.1f}" for name, share in (("p50", 0.5), ("p99", 0.99)))
    return Figure(
        proof,
        what,
        len(values),
        f"{shown}, longest {max(values):.1f} ms",
        "" if limit is None else f"p99 ≤ {limit:g} ms",
        limit is None or percentile(values, 0.99) <= limit,
        note,
        timed=True,
    )


def table(found: Iterable[Figure], title: str) -> Table:
    shown = Table(title=title)
    for heading in ("what", "tries", "figure", "limit", "", "note"):
        shown.add_column(heading, justify="right" if heading in ("tries", "figure", "limit") else "left")
    last = ""
    for f in found:
        if last and f.proof != last:
            shown.add_section()
        last = f.proof
        mark = "" if not f.limit else "[green]✓[/]" if f.held else "[bold red]✗[/]"
        shown.add_row(f.what, f"{f.tries:,}", f.figure, f.limit, mark, f"[dim]{f.note}[/]")
    return shown
