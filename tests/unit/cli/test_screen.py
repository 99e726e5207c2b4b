"""Tables at every width: nothing is cut off, nothing sticks out."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from killswitch.cli import screen
from killswitch.commands import FREE, Containment


def drawn(grid: screen.Grid, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False, highlight=False, markup=False).print(grid)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.fixture
def grid() -> screen.Grid:
    made = screen.Grid([("NAME", 0, 12), ("STATE", 0), (">PROCS", 1), ("CGROUP", 2), ("EMPTY", 1)])
    made.add("agent-1", "free", "3", "/killswitch/agent-1", "-")
    made.add(
        "a-rather-long-name-of-an-agent", "severed+frozen", "12", "/killswitch/a-rather-long-name-of-an-agent", "-"
    )
    return made


def test_a_wide_screen_shows_every_column_that_says_something(grid: screen.Grid) -> None:
    assert drawn(grid, 140)[0].split() == ["NAME", "STATE", "PROCS", "CGROUP"]


def test_the_least_important_column_leaves_first(grid: screen.Grid) -> None:
    assert drawn(grid, 60)[0].split() == ["NAME", "STATE", "PROCS"]
    assert drawn(grid, 30)[0].split() == ["NAME", "STATE"]


@pytest.mark.parametrize("width", range(20, 140, 7))
def test_no_line_sticks_out_and_no_letter_is_lost(grid: screen.Grid, width: int) -> None:
    lines = drawn(grid, width)
    assert max(map(len, lines)) <= width
    shown = "".join("".join(lines).split())
    assert "…" not in shown
    wrapped = [line[: line.find("  ")] if "  " in line else line for line in lines[2:]]
    assert "".join(w.strip() for w in wrapped) == "a-rather-long-name-of-an-agent" or width < 40


def test_figures_stand_to_the_right(grid: screen.Grid) -> None:
    head, first, second = drawn(grid, 140)
    end = head.index("PROCS") + 5
    assert first[:end].endswith("    3")
    assert second[:end].endswith("   12")


def test_a_row_of_the_wrong_length_is_refused(grid: screen.Grid) -> None:
    with pytest.raises(ValueError, match="1 cells for 5 columns"):
        grid.add("x")


def test_containment_says_when_another_is_wanted() -> None:
    cut = Containment(severed=True, frozen=True)
    assert screen.containment(cut, cut).plain == "severed+frozen"
    assert screen.containment(FREE, cut).plain == "free (wanted: severed+frozen)"
    assert screen.containment(cut, FREE).plain == "severed+frozen (wanted: free)"


def test_markup_in_a_name_is_text() -> None:
    made = screen.Grid([("NAME", 0)])
    made.add(screen.said("[red]x[/red] :skull:"))
    assert drawn(made, 80)[1] == "[red]x[/red] :skull:"
