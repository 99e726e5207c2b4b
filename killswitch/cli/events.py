"""``events [-f]``: what happened, and what happens."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from killswitch.cli import exits
from killswitch.cli.lines import describe, line
from killswitch.cli.moments import boot_offset, history, wall_clock
from killswitch.cli.output import emit_item, output_option
from killswitch.cli.session import Session, command, complete_workload
from killswitch.commands import Finding, Receipt

if TYPE_CHECKING:
    from killswitch.control.service import StreamItem

KINDS = (
    "finding",
    "receipt",
    "exec",
    "fork",
    "exit",
    "connect",
    "listen",
    "unanswered",
    "answered",
    "wire",
    "file",
    "signal",
    "flow",
    "cgroup_move",
    "cgroup_created",
    "cgroup_removed",
    "cpu",
    "lost",
)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Show what happens from now on, until Ctrl-C.")
@click.option("-w", "--workload", default="", help="Only of this workload.", shell_complete=complete_workload)
@click.option(
    "-k",
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    metavar="KIND",
    help=f"Only this kind; can be given again. One of {', '.join(KINDS)}.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many incidents back."
)
@output_option
@command
def events(session: Session, follow: bool, workload: str, kinds: tuple[str, ...], limit: int, output: str) -> None:
    """What happened; -f follows what happens.

    Without -f: the findings and receipts of the recorded incidents, oldest first (what else the kernel saw is not
    kept). With -f: every event as it happens, one a line.
    """
    try:
        if follow:
            _follow(session, workload, kinds, output)
        else:
            _past(session, workload, kinds, limit, output)
    except BrokenPipeError:
        raise SystemExit(0) from None  # "events | head" has seen enough


def _say(text: str) -> None:
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def _past(session: Session, workload: str, kinds: tuple[str, ...], limit: int, output: str) -> None:
    with session.client() as client:
        found = client.incidents(open_only=False, limit=limit)
    wanted = [i for i in found if workload in ("", i.workload_name, i.cgroup, str(i.workload))]
    rows = sorted(((at, i, thing) for i in wanted for at, thing in history(i)), key=lambda row: row[0])
    rows = [row for row in rows if not kinds or describe(row[2])[0] in kinds]
    for at, i, thing in rows:
        kind, what = describe(thing, incident=i.id)
        text = line(wall_clock(at), i.workload_name, kind, what)
        emit_item(_record(at, kind, thing, i.workload_name, i.id), output, partial(_say, text))
    if not rows and output == "table":
        click.echo("Nothing was found or done so far. See what happens now: killswitch events -f")


def _follow(session: Session, workload: str, kinds: tuple[str, ...], output: str) -> None:
    offset = boot_offset()
    from killswitch.control.service import EventFilter

    with session.client() as client:
        for item in client.stream(EventFilter(workload, kinds)):
            _show(item, offset, output)


def _show(item: StreamItem, offset: float, output: str) -> None:
    if item.dropped:
        exits.complain(f"{item.dropped} events were missed here: this reader is too slow", prefix="warning: ")
    thing = item.event or item.finding or item.receipt
    if thing is None:
        return
    ns = thing.finished_ns if isinstance(thing, Receipt) else thing.time_ns
    at = offset + ns / 1e9
    kind, what = describe(thing, incident=item.incident)
    if not what:
        return
    emit_item(
        _record(at, kind, thing, item.workload_name, item.incident),
        output,
        lambda: _say(line(wall_clock(at), item.workload_name, kind, what)),
    )


def _record(at: float, kind: str, thing: Any, workload_name: str, incident: str) -> dict[str, Any]:
    """One element as JSON has it: what it is beside the thing's own fields."""
    head = {"time": at, "kind": kind, "workload_name": workload_name, "incident": incident}
    return head | {"finding" if isinstance(thing, Finding) else "receipt" if kind == "receipt" else "event": thing}
