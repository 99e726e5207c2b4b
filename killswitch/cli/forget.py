"""``forget``: what automatic containment remembers is cleared at an operator's word."""

from __future__ import annotations

import click

from killswitch.cli.exits import Exit
from killswitch.cli.output import emit, output_option
from killswitch.cli.session import Session, command


@click.command()
@click.argument("what", metavar="budget|INCIDENT|SHA256")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit.")
@output_option
@command
def forget(session: Session, what: str, reason: str, output: str) -> Exit:
    """Clear what automatic containment remembers.

    budget: rules may contain workloads again, as if they had contained none. INCIDENT, SHA256: the programs of that
    incident, or that program, are innocent, and no longer looked for in other workloads. A release of the incident's
    workload does the same.
    """
    with session.client() as client:
        told = client.forget(what, reason)
    emit({"detail": told}, output, lambda: click.echo(told))
    return Exit.DONE
