"""``policy replay`` and ``policy diff``: recorded events put to other policies. No daemon, and nothing is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from killswitch.cli import human
from killswitch.cli.exits import Exit, complain
from killswitch.cli.output import emit, output_option
from killswitch.cli.recorded import read_events
from killswitch.cli.session import Session, command
from killswitch.commands import Finding, RecordFinding, Response
from killswitch.errors import PolicyError
from killswitch.events import Event, Tick, WorkloadAdded

if TYPE_CHECKING:
    from killswitch.engine import Engine

SECOND = 1_000_000_000
_PATH = click.Path(path_type=Path, exists=True)
_EVENTS = click.option(
    "-e",
    "--events",
    "recorded",
    type=click.File(),
    default="-",
    show_default=True,
    help="What 'events -o json' printed.",
)


@dataclass(frozen=True, slots=True)
class Difference:
    workload: int
    rule: str
    before: int  # findings by the old policies
    after: int  # by the new ones
    does_before: str
    does_after: str


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_PATH)
@_EVENTS
@output_option
@command
def replay(session: Session, files: tuple[Path, ...], recorded: IO[str], output: str) -> Exit:
    """What policy files would find in recorded events. Needs no daemon.

    The events are those of 'killswitch events -f -o json', or of the findings that are kept (without -f). All given
    policies judge all of them, whichever cgroups they watch.
    """
    found = _found(files, read_events(recorded, _name(recorded)))
    if found is None:
        return Exit.FAILED
    emit(found, output, lambda: _show_findings(found))
    return Exit.DONE


@click.command()
@click.argument("old", type=_PATH)
@click.argument("new", type=_PATH)
@_EVENTS
@output_option
@command
def diff(session: Session, old: Path, new: Path, recorded: IO[str], output: str) -> Exit:
    """What two policies (files, or folders of them) say differently about the same recorded events. Needs no daemon."""
    events = list(read_events(recorded, _name(recorded)))
    before, after = _found([old], events), _found([new], events)
    if before is None or after is None:
        return Exit.FAILED
    found = differences(before, after)
    emit(found, output, lambda: _show_differences(found, len(events)))
    return Exit.DONE


def judged(files: Iterable[Path], events: Iterable[Event]) -> Iterator[Finding]:
    """The findings of these policies in these events, as a daemon would have recorded them. Raises PolicyError."""
    from killswitch.engine import Engine
    from killswitch.policy.check import policy_files
    from killswitch.policy.compile import compile_policies
    from killswitch.policy.load import load_files

    compiled = compile_policies(load_files(policy_files(files)))
    engine = Engine(compiled)
    everything = tuple(range(len(compiled.policies)))
    known: set[int] = set()
    now = 0
    for event in events:
        workload = getattr(event, "workload", 0)
        if isinstance(event, WorkloadAdded):
            event = replace(event, policies=everything)
        elif workload and workload not in known:
            yield from _findings(engine, WorkloadAdded(event.time_ns, workload, f"id {workload}", "/", everything))
        known.add(workload)
        if event.time_ns - now >= SECOND:  # ticks are not recorded
            now = event.time_ns
            yield from _findings(engine, Tick(now))
        yield from _findings(engine, event)
    yield from _findings(engine, Tick(now + 120 * SECOND))  # what was folded comes out


def _findings(engine: Engine, event: Event) -> Iterator[Finding]:
    return (c.finding for c in engine.handle(event) if isinstance(c, RecordFinding))


def differences(before: Sequence[Finding], after: Sequence[Finding]) -> list[Difference]:
    """Of each workload and rule: where the count or what is done is not the same."""
    counts = [Counter((f.workload, f.rule) for f in found) for found in (before, after)]
    does = [{(f.workload, f.rule): would_do(f) for f in found} for found in (before, after)]
    return [
        Difference(*key, counts[0][key], counts[1][key], does[0].get(key, ""), does[1].get(key, ""))
        for key in sorted(counts[0].keys() | counts[1].keys())
        if counts[0][key] != counts[1][key] or does[0][key] != does[1][key]
    ]


def would_do(finding: Finding) -> str:
    acts = [r for r in finding.responses if r is not Response.ALERT]
    return " ".join(acts if finding.mode == "enforce" and acts else ["alert"])


def _found(files: Sequence[Path], events: Iterable[Event]) -> list[Finding] | None:
    try:
        return list(judged(files, events))
    except PolicyError as error:
        for problem in error.problems:
            complain(str(problem), prefix="")
        return None


def _name(file: IO[str]) -> str:
    return str(getattr(file, "name", "-"))


def _show_findings(found: Sequence[Finding]) -> None:
    from killswitch.cli.screen import Grid, level, said, show

    if not found:
        click.echo("Nothing is found in these events.")
        return
    grid = Grid([("LEVEL", 1), ("RULE", 0), ("WORKLOAD", 3), ("WOULD", 0, 16), ("WHAT", 0, 24)])
    for f in found:
        grid.add(level(f.level), said(f.rule), str(f.workload), said(would_do(f)), said(f.summary))
    show(grid)


def _show_differences(found: Sequence[Difference], events: int) -> None:
    from killswitch.cli.screen import Grid, said, show

    if not found:
        click.echo(f"No difference in {human.plural(events, 'event')}.")
        return
    grid = Grid([("RULE", 0), ("WORKLOAD", 3), (">BEFORE", 0), (">AFTER", 0), ("DID", 1, 16), ("WOULD", 0, 16)])
    for d in found:
        grid.add(
            said(d.rule, "bold"),
            str(d.workload),
            str(d.before),
            str(d.after),
            said(d.does_before or "-"),
            said(d.does_after or "-"),
        )
    show(grid)
