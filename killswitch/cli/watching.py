"""``watch``, ``unwatch``, ``workloads``: what is watched."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from killswitch.cli import human
from killswitch.cli.output import emit, output_option
from killswitch.cli.session import Session, command, complete_workload

if TYPE_CHECKING:
    from killswitch.control.service import WorkloadInfo

NOTHING_WATCHED = """No workloads are watched yet.

Start one:           killswitch run -- CMD
Watch a running one: killswitch watch /system.slice/agent.service"""


@click.command()
@click.argument("cgroup")
@click.option("--name", default="", help="What to call it.  [default: the last part of the path]")
@click.option("--reason", default="watched by hand", show_default=True, help="Why; kept in the audit.")
@output_option
@command
def watch(session: Session, cgroup: str, name: str, reason: str, output: str) -> None:
    """Watch a running cgroup.

    CGROUP is a path below the cgroup v2 root, such as /system.slice/agent.service. Everything in it and below it is one
    workload from now on.
    """
    with session.client() as client:
        info = client.watch(cgroup, reason, name=name)
    emit(info, output, lambda: _show_watched(info))


@click.command()
@click.argument("target", metavar="WORKLOAD", shell_complete=complete_workload)
@click.option("--reason", default="unwatched by hand", show_default=True, help="Why; kept in the audit.")
@click.option("--remove", is_flag=True, help="Remove its cgroup too; refused while it has processes.")
@output_option
@command
def unwatch(session: Session, target: str, reason: str, remove: bool, output: str) -> None:
    """Stop watching a workload. It goes on running; one that is contained has to be released first."""
    with session.client() as client:
        info = client.unwatch(target, reason, remove=remove)

    def table() -> None:
        from killswitch.cli.screen import said, show

        show(
            said(info.name, "bold").append(
                " is not watched any more" + (", and its cgroup is gone." if remove else "; it goes on running."),
                "not bold",
            )
        )

    emit(info, output, table)


@click.command()
@output_option
@command
def workloads(session: Session, output: str) -> None:
    """What is watched, and how it is contained."""
    with session.client() as client:
        found = client.workloads()
    emit(found, output, lambda: show_workloads(found, time.time()))


def _show_watched(info: WorkloadInfo) -> None:
    from killswitch.cli.screen import said, show

    by = ", ".join(info.policies)
    show(
        said(info.name, "bold").append(
            f" is watched: {human.plural(info.processes, 'process', 'processes')}", "not bold"
        )
    )
    if by:
        show(said(f"policies: {by}"))
    else:
        from killswitch.cli.exits import complain

        complain(
            f"no policy watches {info.cgroup}: it is only seen, and can be contained by hand; "
            "add its path to 'workloads:' of a policy and call 'killswitch policy reload'",
            prefix="warning: ",
        )


def show_workloads(found: Sequence[WorkloadInfo], now: float) -> None:
    """The table of workloads, contained ones first."""
    from killswitch.cli.screen import Grid, containment, said, show

    if not found:
        click.echo(NOTHING_WATCHED)
        return
    grid = Grid(
        [
            ("NAME", 0, 24),
            ("STATE", 0, 15),
            ("INCIDENT", 1),
            (">PROCS", 2),
            (">AGE", 3),
            (">DROPPED", 4),
            (">HELD", 5),
            (">SENT", 6),
            (">RECEIVED", 7),
            (">LOST", 5),
            ("POLICIES", 8),
            ("CGROUP", 9),
        ]
    )
    for w in sorted(found, key=lambda w: (str(w.observed) == "free" and str(w.desired) == "free", w.name, w.cgroup)):
        grid.add(
            said(w.name, "bold"),
            containment(w.observed, w.desired),
            w.incident or "-",
            human.number(w.processes),
            human.age(w.since_unix, now),
            human.number(w.dropped_packets) if w.dropped_packets else "-",
            human.number(w.held_packets) if w.held_packets else "-",
            human.number(w.tx_packets),
            human.number(w.rx_packets),
            human.number(w.lost_events) if w.lost_events else "-",
            said(",".join(w.policies) or "-"),
            said(w.cgroup),
        )
    show(grid)
