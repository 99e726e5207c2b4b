"""``evidence ID``: list, show and save what was captured."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from killswitch.cli import human
from killswitch.cli.escape import printable
from killswitch.cli.exits import Exit, complain
from killswitch.cli.output import emit, output_option
from killswitch.cli.session import Session, command, complete_incident
from killswitch.errors import KillswitchError


class UnsafeName(KillswitchError):
    """A file of the evidence has a name that would leave the directory that it is saved to."""


@click.command()
@click.argument("incident", metavar="ID", shell_complete=complete_incident)
@click.argument("file", required=False)
@click.option(
    "-d",
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save the files there; it must not hold any of them already.",
)
@output_option
@command
def evidence(session: Session, incident: str, file: str | None, directory: Path | None, output: str) -> Exit:
    """What was captured of an incident, while it was frozen.

    Lists the files; with FILE, prints that one (raw bytes when stdout is no terminal); with -d, saves all of them. The
    files hold what the workload chose: look at them with that in mind.
    """
    if file is not None and directory is not None:
        raise click.UsageError("give FILE to print one file, or -d DIRECTORY to save them all, not both")
    with session.client() as client:
        chunks = client.evidence(incident)
        if file is not None:
            return _print(chunks, file, incident)
        sizes = _save(chunks, directory) if directory is not None else _measure(chunks)
    rows = [{"file": name, "bytes": size} for name, size in sizes.items()]
    emit(rows, output, lambda: _table(sizes, incident, directory))
    return Exit.DONE


def _measure(chunks: Iterator[tuple[str, bytes]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, chunk in chunks:
        sizes[name] = sizes.get(name, 0) + len(chunk)
    return sizes


def _print(chunks: Iterator[tuple[str, bytes]], file: str, incident: str) -> Exit:
    out = sys.stdout.buffer
    tty, found = out.isatty(), False
    names: set[str] = set()
    for name, chunk in chunks:
        names.add(name)
        if name == file:
            found = True
            if tty:  # a terminal would obey what a workload wrote
                lines = chunk.decode("utf-8", "surrogateescape").split("\n")
                chunk = "\n".join(printable(line.replace("\t", "    ")) for line in lines).encode()
            out.write(chunk)
    out.flush()
    if not found:
        complain(f"evidence of {incident}: no file {file!r}; there are {', '.join(sorted(names)) or 'none'}")
    return Exit.DONE if found else Exit.FAILED


def _save(chunks: Iterator[tuple[str, bytes]], directory: Path) -> dict[str, int]:
    """Write the files below ``directory``, readable by their owner alone; nothing that exists is overwritten."""
    sizes: dict[str, int] = {}
    files: dict[str, BinaryIO] = {}
    with ExitStack() as stack:
        for name, chunk in chunks:
            if name not in files:
                try:
                    files[name] = stack.enter_context(_create(directory, name))
                except OSError as e:
                    raise KillswitchError(f"{directory / name}: {e.strerror}; save to an empty directory") from e
            files[name].write(chunk)
            sizes[name] = sizes.get(name, 0) + len(chunk)
    return sizes


def _create(directory: Path, name: str) -> BinaryIO:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UnsafeName(f"evidence file {name!r}: would lie outside {directory}; nothing of it was written")
    target = directory / path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")


def _table(sizes: dict[str, int], incident: str, directory: Path | None) -> None:
    from killswitch.cli.screen import Grid, said, show

    if not sizes:
        click.echo(f"No evidence of {printable(incident)} was kept (yet): it is captured when a workload is frozen.")
        return
    grid = Grid([("FILE", 0), (">SIZE", 0)])
    for name, size in sizes.items():
        grid.add(said(name), human.size(size))
    show(grid)
    if directory is not None:
        show(said(f"Saved to {directory}", "dim"))
    else:
        show(
            said(
                f"Print one: killswitch evidence {incident} FILE    Save all: killswitch evidence {incident} -d DIR",
                "dim",
            )
        )
