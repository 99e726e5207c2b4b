"""``make bench``: every figure in one table, with what was promised beside it. ``--quick`` for a first look.

Exit status 0 when every promise was reached, 1 when one was not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Row

GROUPS = ("exec_cost", "network", "events", "kill", "hold", "judging", "hashing", "footprint")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench BENCH_ARGS=…", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"only these: {', '.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: figures are rough")
    parser.add_argument("--json", action="store_true", help="one object a line instead of a table")
    args = parser.parse_args()
    if unknown := set(args.groups) - set(GROUPS):
        parser.error(f"no group is called {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")

    console = Console(stderr=True, highlight=False)
    found: list[Row] = []
    for group in args.groups or GROUPS:
        console.print(f"[dim]measuring {group} …[/]")
        measured: Iterator[Row] = importlib.import_module(f"benchmarks.{group}").rows(args.quick)
        for row in measured:
            console.print(f"  [dim]{row.name}: {row.figure}[/]")
            found.append(row)
    if args.json:
        for row in found:
            print(json.dumps({name: getattr(row, name) for name in Row.__slots__}))
    else:
        Console(highlight=False, width=None if sys.stdout.isatty() else 130).print(table(found))
    return 0 if all(row.reached is not False for row in found) else 1


def table(found: list[Row]) -> Table:
    shown = Table(
        title=f"killswitch on {platform.release()}, {platform.machine()}", caption="× : ratio in the same run"
    )
    for heading in ("what", "figure", "promised", "", "note"):
        shown.add_column(heading, justify="right" if heading in ("figure", "promised") else "left")
    last = ""
    for row in found:
        if last and row.group != last:
            shown.add_section()
        last = row.group
        mark = {None: "", True: "[green]✓[/]", False: "[bold red]✗[/]"}[row.reached]
        shown.add_row(row.name, row.figure, row.target, mark, f"[dim]{row.note}[/]")
    return shown


if __name__ == "__main__":
    raise SystemExit(main())
