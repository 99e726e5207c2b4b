"""``metrics``: the daemon's figures for Prometheus, on stdout or in a file for node_exporter's textfile collector."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from killswitch.cli import exposition
from killswitch.cli.exits import Exit, report
from killswitch.cli.session import Session, command
from killswitch.errors import KillswitchError


@click.command()
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Replace this file, whole, instead of printing; *.prom in the directory of a textfile collector.",
)
@command
def metrics(session: Session, file: Path | None) -> Exit:
    """The daemon's figures, for Prometheus.

    Asks the daemon once and prints its state in the text exposition format: no port is open for it. When the daemon does
    not answer, killswitch_up is 0 and nothing else is there; the exit status says why.
    """
    code = Exit.DONE
    try:
        with session.client() as client:
            text = exposition.of(client.status(), client.workloads())
    except KillswitchError as error:
        text, code = exposition.down(), report(error)
    if file is None:
        click.echo(text, nl=False)
        return code
    try:
        replace(file, text)
    except OSError as error:
        raise click.ClickException(f"{file}: cannot be written: {error.strerror}; does its directory exist?") from error
    return code


def replace(file: Path, text: str) -> None:
    """Put ``text`` in place of the file at once: who reads it sees the one or the other. Raises OSError."""
    handle, made = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # not *.prom: not collected
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        Path(made).chmod(0o644)  # for the collector, which is not root
        Path(made).replace(file)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
