"""``top``: the watched workloads, live."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from killswitch.cli import human
from killswitch.cli.exits import Exit, code_of, complain
from killswitch.cli.keys import listening, pause
from killswitch.cli.output import TABLE, emit_item, output_option
from killswitch.cli.plain import plain
from killswitch.cli.rates import SORTS, Look, Row, per_second, rows
from killswitch.cli.session import Session, command
from killswitch.errors import KillswitchError, TimedOut, Unreachable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

PATIENCE = 3.0  # seconds that a look may take before it counts as none


@click.command()
@click.option(
    "-d",
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option(
    "-s",
    "--sort",
    type=click.Choice(SORTS),
    default="state",
    show_default=True,
    help="What comes first. state: contained ones, then who uses the most CPU.",
)
@click.option("--once", is_flag=True, help="Look once, for one interval, and end.")
@output_option
@command
def top(session: Session, interval: float, sort: str, once: bool, output: str) -> Exit | None:
    """The watched workloads, live: containment, CPU, packets, events.

    On a terminal q or Ctrl-C ends it, s sorts by something else, and it goes on when the daemon is restarted. Elsewhere, and
    with -o json (one object a line) or yaml, it prints one look after the other, and ends with the daemon. Rates are per
    second, over the interval.
    """
    watch = Watch(session, interval, sort)
    if output == TABLE and not once and sys.stdout.isatty():
        return watch.live()
    return watch.stream(output, once=once)


class Watch:
    """Looks at the daemon every ``interval`` seconds, and keeps the last two looks."""

    def __init__(self, session: Session, interval: float, sort: str) -> None:
        self._session, self._interval, self._sort = session, interval, sort
        self._before: Look | None = None
        self._now: Look | None = None

    def look(self) -> None:
        """Raises KillswitchError."""
        session = self._session
        with Session(session.socket, session.timeout or PATIENCE).client() as client:
            found = Look(time.monotonic(), time.time(), client.status(), client.workloads())
        self._before, self._now = self._now, found

    # --- one after the other ---

    def stream(self, output: str, *, once: bool) -> Exit | None:
        try:
            self.look()  # rates need two
            first = True
            while True:
                time.sleep(self._interval)
                self.look()
                self._print(output, first)
                first = False
                if once:
                    return Exit.DONE
        except KeyboardInterrupt:
            return Exit.DONE
        except BrokenPipeError:
            raise SystemExit(0) from None  # "top | head" has seen enough

    def _print(self, output: str, first: bool) -> None:
        from killswitch.cli.screen import show

        def table() -> None:
            show(*([] if first else [""]), *self._screen())

        emit_item(self._record(), output, table)

    def _record(self) -> dict[str, Any]:
        assert self._now
        now = self._now
        return {
            "time": now.unix,
            "interval": now.at - self._before.at if self._before else None,
            "events_per_second": per_second(self._before, now),
            "status": now.status,
            "workloads": [plain(r) for r in rows(self._before, now, self._sort)],
        }

    # --- live ---

    def live(self) -> Exit | None:
        from rich.live import Live

        from killswitch.cli.screen import console

        out = console(live=True)
        self.look()  # who cannot be reached at all is told so, on the ordinary screen
        trouble = ""

        def shown() -> RenderableType:
            return self._whole(out, trouble)

        live = Live(get_renderable=shown, console=out, screen=True, auto_refresh=False)
        with contextlib.suppress(KeyboardInterrupt), listening() as keys, live as screen:
            while True:
                screen.refresh()
                key = pause(self._interval if self._before else min(1.0, self._interval), keys=keys)
                if key in ("q", "Q"):
                    break
                if key in ("s", "S"):
                    self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
                    continue
                try:
                    self.look()
                    trouble = ""
                except (Unreachable, TimedOut) as error:
                    trouble = str(error)
                except KillswitchError as error:
                    screen.stop()
                    complain(str(error))
                    return code_of(error)
        return Exit.DONE

    def _whole(self, out: Console, trouble: str) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        foot = Text(f"q ends, s sorts: now by {self._sort}", "dim")
        return Group(*self._screen(out, trouble=trouble, below=foot), "", foot)

    # --- what is on it ---

    def _screen(self, on: Console | None = None, *, trouble: str = "", below: str | Text = "") -> list[RenderableType]:
        """What fits ``on`` it, with an empty line and ``below`` below; on nothing in particular, all that there is."""
        from rich.text import Text

        from killswitch.cli.screen import said
        from killswitch.cli.watching import NOTHING_WATCHED

        assert self._now
        found = rows(self._before, self._now, self._sort)
        out: list[RenderableType] = list(self._head())
        if trouble:
            out.append(
                Text(
                    "THE DAEMON DOES NOT ANSWER; what is contained stays so. Last seen is below. ", "bold red"
                ).append_text(said(trouble, "not bold"))
            )
        if not found:
            return [*out, "", NOTHING_WATCHED]
        room = len(found)
        if on:
            taken = sum(len(on.render_lines(part, on.options)) for part in (*out, below))
            room = max(1, on.height - taken - 4)  # blank, headings, how many more there are, blank
        out += ["", grid(found[:room])]
        if len(found) > room:
            out.append(Text(f"… and {len(found) - room} more", "dim"))
        return out

    def _head(self) -> list[Text]:
        from rich.text import Text

        from killswitch.cli.status import proof_line

        assert self._now
        now, status = self._now, self._now.status
        ill = [h.part for h in status.health if not h.ok]
        first = Text("killswitch ", "bold").append(
            f"not well: {', '.join(ill)}" if ill else "armed", "bold yellow" if ill else "bold green"
        )
        first.append(f", up {human.age(status.started_unix, now.unix)}; {status.workloads} watched, ", "not bold")
        first.append(f"{status.contained} contained", "bold red" if status.contained else "not bold")
        first.append("; ", "not bold")
        incidents = human.plural(status.open_incidents, "open incident")
        first.append(incidents, "bold red" if status.open_incidents else "not bold")
        speed, lost = per_second(self._before, now), sum(status.lost.values())
        second = Text(f"events {_rate(speed)}/s, ")
        second.append(f"{human.number(lost)} lost", "bold yellow" if lost else "")
        second.append("; proof: ").append_text(proof_line(status.proof, now.unix))
        return [first, second]


def grid(found: list[Row]) -> RenderableType:
    """The table. What matters least leaves first when the screen is narrow."""
    from rich.text import Text

    from killswitch.cli.screen import Grid, containment, said

    table = Grid(
        [
            ("NAME", 0, 24),
            ("STATE", 0, 14),
            (">CPU", 1),
            (">PROCS", 3),
            (">HASHING", 5),
            (">OUT/S", 6),
            (">IN/S", 7),
            (">DROPPED", 2),
            (">HELD", 4),
            (">EVENTS/S", 8),
            (">LOST", 4),
            ("INCIDENT", 1),
        ]
    )
    for r in found:
        table.add(
            said(r.name, "bold"),
            containment(r.observed, r.desired),
            "-" if r.cores is None else f"{r.cores:.2f}",
            human.number(r.processes),
            "-" if r.hashing is None else Text(f"{r.hashing:.2f}", "bold yellow" if r.hashing >= 0.5 else ""),
            _rate(r.sent),
            _rate(r.received),
            _dropped(r),
            human.number(r.held) if r.held else "-",
            _rate(r.events),
            Text(human.number(r.lost), "bold yellow") if r.lost else "-",
            r.incident or "-",
        )
    return table


def _rate(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if 0 < value < 10 else human.number(round(value))


def _dropped(r: Row) -> Text:
    """All that ever were; coloured while they grow."""
    from rich.text import Text

    growing = bool(r.dropping)
    return Text(human.number(r.dropped) if r.dropped else "-", "bold red" if growing else "")
