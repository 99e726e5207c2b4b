"""``incidents [ID]``: what was found, and what was done about it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from killswitch.cli import human
from killswitch.cli.moments import wall_clock
from killswitch.cli.output import emit, output_option
from killswitch.cli.session import Session, command, complete_incident

if TYPE_CHECKING:
    from rich.console import RenderableType

    from killswitch.commands import Finding
    from killswitch.control.service import IncidentInfo


@click.command()
@click.argument("incident", metavar="[ID]", required=False, shell_complete=complete_incident)
@click.option("--open", "open_only", is_flag=True, help="Leave out what is closed.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@output_option
@command
def incidents(session: Session, incident: str | None, open_only: bool, limit: int, output: str) -> None:
    """What was found and done, newest first; with an ID, one incident in full."""
    with session.client() as client:
        if incident is not None:
            one = client.incident(incident)
            emit(one, output, lambda: show_incident(one, time.time()))
            return
        found = client.incidents(open_only=open_only, limit=limit)
    emit(found, output, lambda: show_incidents(found, time.time(), open_only=open_only))


def show_incidents(found: Sequence[IncidentInfo], now: float, *, open_only: bool = False) -> None:
    """The table of incidents."""
    from rich.text import Text

    from killswitch.cli.screen import Grid, containment, level, said, show

    if not found:
        click.echo(
            "No incident is open." if open_only else "No incidents. Nothing was found, and nobody pulled the switch."
        )
        return
    grid = Grid(
        [
            ("ID", 0),
            ("STATUS", 0),
            ("LEVEL", 1),
            ("WORKLOAD", 0, 16),
            ("STATE", 2),
            (">AGE", 1),
            (">FINDINGS", 4),
            ("REASON", 3, 16),
            ("EVIDENCE", 5),
        ]
    )
    for i in found:
        grid.add(
            Text(i.id, "bold"),
            Text("closed", "dim") if i.closed_unix else Text("open", "bold red"),
            level(i.level),
            said(i.workload_name or i.cgroup),
            containment(i.containment),
            human.age(i.opened_unix, now),
            human.number(len(i.findings)),
            said(i.reason or "-"),
            "kept" if i.evidence else "-",
        )
    show(grid)


def show_incident(i: IncidentInfo, now: float) -> None:
    """One incident: what, why, the findings, the receipts, and where to go from here."""
    from rich.text import Text

    from killswitch.cli.orders import receipt_grid
    from killswitch.cli.screen import Grid, containment, facts, heading, level, said, show

    title = Text(i.id, "bold").append("  ")
    title.append("closed" if i.closed_unix else "open", "dim" if i.closed_unix else "bold red")
    opened = f"{wall_clock(i.opened_unix, date=True)} ({human.age(i.opened_unix, now)} ago)"
    pairs: list[tuple[str, str | Text]] = [
        ("workload", said(i.workload_name, "bold").append(f" (id {i.workload})", "dim")),
        ("cgroup", said(i.cgroup)),
        ("state", containment(i.containment)),
        ("level", level(i.level)),
        ("opened", opened),
    ]
    if i.closed_unix:
        lasted = human.duration(i.closed_unix - i.opened_unix)
        pairs.append(("closed", f"{wall_clock(i.closed_unix, date=True)} (after {lasted})"))
    pairs += [("reason", said(i.reason or "-"))]
    if i.after:
        pairs.append(("again", f"after the release of {i.after}"))
    if i.findings:
        pairs.append(("rests on", said(rests_on(i.findings))))
    pairs.append(("evidence", said(i.evidence or "none yet")))
    out: list[RenderableType] = [title, facts(pairs)]

    if i.findings:
        grid = Grid(
            [
                ("LEVEL", 1),
                ("RULE", 0),
                ("SIGN", 4),
                ("MODE", 5),
                (">PID", 2),
                (">VERDICT", 6),
                ("IN KERNEL", 3),
                ("WHAT", 0, 24),
            ]
        )
        for f in i.findings:
            grid.add(
                level(f.level),
                said(f.rule),
                f"{f.act}: {f.evidence}" if f.act and f.evidence else str(f.act or "-"),
                str(f.mode),
                str(f.pid),
                human.duration(f.verdict_ns / 1e9) if f.verdict_ns else "-",
                ", ".join(f.done_in_kernel) or "-",
                said(f.summary or f.title),
            )
        out += ["", heading("Findings"), grid]
    if i.receipts:
        out += ["", heading("What was done"), receipt_grid(i.receipts)]
    hints = _hints(i)
    if hints:
        out += ["", *(said(h, "dim") for h in hints)]
    show(*out)


def rests_on(findings: Sequence[Finding]) -> str:
    """Which acts, and which kinds of evidence for each: one kind may err, two agree."""
    kinds: dict[str, dict[str, None]] = {}
    for f in findings:
        if f.act and f.evidence:
            kinds.setdefault(f.act, {})[f.evidence] = None
    told = [f"{act} by {' and '.join(sorted(of))}" for act, of in kinds.items()]
    return "; ".join(told) or "no rule that says what it is evidence of"


def _hints(i: IncidentInfo) -> list[str]:
    hints = [f"Evidence:  killswitch evidence {i.id}"] if i.evidence else []
    if not i.closed_unix and str(i.containment) not in ("free", "terminated"):
        hints.append(f"Let it go: killswitch release {i.workload_name} --reason TEXT")
    return hints
