"""The screen: rich, set up so that a pipe gets plain whole lines and a terminal gets colour.

Imported only by what draws: rich costs some 50 ms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Literal, TextIO

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from killswitch.cli.escape import printable
from killswitch.commands import Containment, Outcome

_PIPE_WIDTH = 4096  # nobody folds a pipe: every column is there, on one line, for grep and awk

LEVELS = {"informational": "dim", "low": "cyan", "medium": "yellow", "high": "red", "critical": "bold red"}
OUTCOMES = {Outcome.DONE: "green", Outcome.FAILED: "bold red", Outcome.REFUSED: "yellow"}


def console(stream: TextIO | None = None, *, live: bool = False) -> Console:
    """A console on ``stream`` (stdout): no ANSI when it is no terminal or ``NO_COLOR`` is set; no markup, no emoji. ``live``:
    it is drawn over and over, so the terminal is steered all the same, and only colour is left out."""
    out = stream or sys.stdout
    tty = out.isatty()
    plain = not tty or bool(os.environ.get("NO_COLOR"))
    width = None if tty or os.environ.get("COLUMNS", "").isdigit() else _PIPE_WIDTH
    return Console(
        file=out,
        width=width,
        force_terminal=False if plain and not live else None,
        color_system=None if plain else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def show(*what: RenderableType) -> None:
    """Print to stdout, one below the other."""
    out = console()
    if out.is_terminal:
        for item in what:
            out.print(item)
        return
    with out.capture() as captured:
        for item in what:
            out.print(item)
    sys.stdout.write("\n".join(line.rstrip() for line in captured.get().split("\n")))


def said(value: str | bytes, style: str = "") -> Text:
    """Text that a workload chose, made safe."""
    return Text(printable(value), style)


def containment(observed: Containment, desired: Containment | None = None) -> Text:
    """What is observed, coloured; where something else is desired, that is said beside it."""
    word = str(observed)
    style = {"free": "green", "terminated": "bold magenta"}.get(word, "bold red")
    text = Text(word, style)
    if desired is not None and desired != observed:
        text.append(f" (wanted: {desired})", "bold yellow")
    return text


def level(word: str) -> Text:
    return Text(word or "-", LEVELS.get(word, ""))


def outcome(value: Outcome) -> Text:
    return Text(str(value), OUTCOMES.get(value, ""))


class Grid:
    """A table that fits: columns that matter least leave first when the screen is narrow, and no cell is cut off.

    ``columns``: (heading, keep), or (heading, keep, wrap). ``keep`` 0 stays whatever comes; the highest leaves first. A
    heading that starts with ``>`` is of figures and stands to the right. ``wrap``: may become as narrow as this, over
    several lines; a column without it is as wide as its widest cell, unless nothing else is left to give.
    """

    def __init__(self, columns: Sequence[tuple[str, int] | tuple[str, int, int]]) -> None:
        self.headings = [c[0].lstrip(">") for c in columns]
        self.right = [c[0].startswith(">") for c in columns]
        self.keep = [c[1] for c in columns]
        self.wrap = [c[2] if len(c) == 3 else 0 for c in columns]
        self.rows: list[tuple[Text, ...]] = []

    def add(self, *cells: str | Text) -> None:
        """One row. A ``str`` is taken for ours and safe; what a workload chose comes as ``said(…)``."""
        if len(cells) != len(self.headings):
            raise ValueError(f"{len(cells)} cells for {len(self.headings)} columns")
        self.rows.append(tuple(c if isinstance(c, Text) else Text(c) for c in cells))

    def fitting(self, width: int) -> dict[int, int]:
        """Index -> width of the columns that fit on a screen ``width`` cells wide. Empty columns are not shown."""
        wide, least = {}, {}
        for i, title in enumerate(self.headings):
            if self.keep[i] == 0 or any(row[i].plain.strip("-") for row in self.rows):
                wide[i] = max([cell_len(title), *(cell_len(row[i].plain) for row in self.rows)])
                least[i] = min(wide[i], max(self.wrap[i], cell_len(title))) if self.wrap[i] else wide[i]
        room = width - 2 * (len(wide) - 1)
        while sum(least.values()) > room:
            goes = max(wide, key=lambda i: (self.keep[i], i))
            if self.keep[goes] == 0:
                return least  # rich folds what is still too wide
            del wide[goes], least[goes]
            room += 2
        for i in sorted(wide, key=lambda i: wide[i]):  # what is left over goes to who needs least to be whole
            least[i] += min(wide[i] - least[i], room - sum(least.values()))
        return least

    def __rich_console__(self, out: Console, options: object) -> list[RenderableType]:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        shown = self.fitting(out.width)
        fits = sum(shown.values()) + 2 * (len(shown) - 1) <= out.width
        for i, width in shown.items():
            justify: Literal["left", "right"] = "right" if self.right[i] else "left"
            table.add_column(self.headings[i], justify=justify, overflow="fold", width=width if fits else None)
        for row in self.rows:
            table.add_row(*(row[i] for i in shown))
        return [table]


def facts(pairs: Sequence[tuple[str, str | Text]]) -> RenderableType:
    """Names on the left, values on the right."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, value)
    return table


def heading(text: str) -> Text:
    return Text(text, "bold")


def indented(what: RenderableType, by: int = 2) -> RenderableType:
    return Padding(what, (0, 0, 0, by), expand=False)
