"""``status``, ``doctor``, ``verify-log``: how the daemon, the kernel and the audit are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from killswitch.cli import human
from killswitch.cli.exits import Exit, complain
from killswitch.cli.output import TABLE, emit, output_option
from killswitch.cli.session import Session, command

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from killswitch.control.service import CapabilityInfo, Health, Holding, Proof, Status, WorkloadInfo

NAMED = 5  # contained workloads that the status names


@click.command()
@output_option
@command
def status(session: Session, output: str) -> None:
    """How the daemon is: armed, what it watches, what it has lost.

    Exit status 0 says that the daemon answers, not that all is well: ask 'killswitch doctor' for that.
    """
    with session.client() as client:
        now = client.status()
        watched = client.workloads() if output == TABLE and now.contained else ()
    emit(now, output, lambda: show_status(now, time.time(), watched))


@click.command()
@output_option
@command
def doctor(session: Session, output: str) -> Exit:
    """What this kernel can and cannot enforce, and whether every part of the daemon works.

    Each capability was tried, not looked up. Exit status 1 when a part of the daemon is not well.
    """
    with session.client() as client:
        now, able = client.status(), client.capabilities()
    emit({"capabilities": able, "health": now.health}, output, lambda: show_doctor(now.health, able))
    ill = [h.part for h in now.health if not h.ok]
    if ill:
        complain(f"not well: {', '.join(ill)}")
    return Exit.FAILED if ill else Exit.DONE


@click.command("verify-log")
@output_option
@command
def verify_log(session: Session, output: str) -> Exit:
    """Check the audit's hash chain: that no line of it was changed, taken out or put in."""
    with session.client() as client:
        whole, detail = client.verify_log()

    def table() -> None:
        from killswitch.cli.screen import said, show

        if whole:
            show(said("The audit is whole", "green"), *([said(detail)] if detail else []))

    emit({"ok": whole, "detail": detail}, output, table)
    if not whole:
        complain(f"the audit is broken: {detail}")
    return Exit.DONE if whole else Exit.FAILED


def show_status(now: Status, unix: float, watched: Sequence[WorkloadInfo] = ()) -> None:
    """The daemon's state on one screen, and who is contained."""
    from rich.text import Text

    from killswitch.cli.screen import facts, said, show

    ill = [h for h in now.health if not h.ok]
    state = Text("armed, but not well", "bold yellow") if ill else Text("armed", "bold green")
    show(Text("killswitch ", "bold").append(now.version).append(" is ", "not bold").append_text(state))
    count = Text(f"{now.workloads} watched, ")
    count.append(f"{now.contained} contained", "bold red" if now.contained else "")
    lost = sum(now.lost.values())
    by = ", ".join(f"{reason} {human.number(n)}" for reason, n in sorted(now.lost.items()) if n)
    seen = Text(f"{human.number(now.events)} seen, ")
    seen.append(f"{human.number(lost)} lost" + (f" ({by})" if by else ""), "bold yellow" if lost else "")
    if now.repeated:
        seen.append(f", {human.number(now.repeated)} more said the same again", "default")
    pairs: list[tuple[str, str | Text]] = [
        ("workloads", count),
        *([("contained", contained_line(watched))] if watched else []),
        ("incidents", Text(f"{now.open_incidents} open", "bold red" if now.open_incidents else "")),
        ("events", seen),
        ("policies", said(", ".join(now.policies) or "none: nothing is judged; put one into /etc/killswitch/policies")),
        (
            "daemon",
            f"pid {now.pid}, up {human.age(now.started_unix, unix)}, armed in {now.armed_ms:.0f} ms"
            f"{' (took over what was in force)' if now.adopted else ''}, {human.size(now.resident_bytes)} resident",
        ),
    ]
    pairs.append(("hold", hold_line(now.holding)))
    pairs.append(("proof", proof_line(now.proof, unix)))
    if str(now.host.desired) != "free":
        whole = str(now.host.observed) != "free"
        line = Text("cut off" if whole else "to be cut off, and is not", "bold red")
        line.append(f", {now.host.incident}" if now.host.incident else "", "")
        line.append(f"; {now.host.detail}" if now.host.detail else "", "bold yellow")
        pairs.insert(0, ("host", line))
        pairs.insert(1, ("goes through", said(now.host.allowed or "nothing")))
    if now.lsm:
        pairs.append(("lsm", said(now.lsm)))
    pairs += [("health", said(f"{h.part}: {h.detail or 'not well'}", "bold yellow")) for h in ill]
    if not ill:
        pairs.append(("health", said(", ".join(h.part for h in now.health) + " ok" if now.health else "ok", "green")))
    show(facts(pairs))


def contained_line(watched: Sequence[WorkloadInfo]) -> Text:
    """Who is contained, how, and where to read why: the first few of them."""
    from rich.text import Text

    from killswitch.cli.screen import containment, said

    found = [w for w in watched if str(w.observed) != "free" or str(w.desired) != "free"]
    line = Text()
    for w in found[:NAMED]:
        line.append(", " if line else "").append_text(said(w.name, "bold")).append(" ")
        line.append_text(containment(w.observed, w.desired))
        if w.incident:
            line.append_text(said(f" ({w.incident})"))
    if len(found) > NAMED:
        line.append(f", and {len(found) - NAMED} more: killswitch workloads")
    return line


def hold_line(h: Holding) -> str:
    """How long programs wait to be judged, and what that held up."""
    if not h.p50_ms:
        return "no program was judged yet"
    line = f"judged within {h.p50_ms:.1f} ms of exec (99 of 100: {h.p99_ms:.1f} ms)"
    if h.late_p50_ms:
        line += f", by their files within {h.late_p50_ms:.1f} ms ({h.late_p99_ms:.1f} ms)"
    return f"{line}; {human.number(h.held_packets)} packets held" + (f", {h.late} programs wait" if h.late else "")


def proof_line(p: Proof, unix: float) -> Text:
    """When the switch last proved that it can halt, and when it will again."""
    from rich.text import Text

    from killswitch.cli.screen import said

    if not p.at_unix:
        due = (
            f"due in {human.duration(max(0.0, p.due_unix - unix))}"
            if p.due_unix
            else "ask for one: killswitch selftest"
        )
        return Text(f"none yet; {due}", "" if p.fresh else "bold yellow")
    ago = human.age(p.at_unix, unix)
    if not p.ok:
        passed = f"; it last passed {human.age(p.good_unix, unix)} ago" if p.good_unix else "; it has never passed"
        return Text(f"FAILED {ago} ago: ", "bold red").append_text(said(p.detail)).append(passed)
    told = Text(f"it was seen to halt {ago} ago", "green" if p.fresh else "bold yellow")
    if not p.fresh:
        told.append(f": too long, it is due every {human.duration(p.every_s)}")
    elif p.due_unix:
        told.append(f"; again in {human.duration(max(0.0, p.due_unix - unix))}", "default")
    else:
        told.append("; only when asked", "default")
    return told


def show_doctor(health: Sequence[Health], able: Sequence[CapabilityInfo]) -> None:
    """The parts of the daemon, what the kernel can do, and what it cannot, that which something rests on first."""
    from rich.text import Text

    from killswitch.cli.screen import Grid, heading, indented, said, show

    parts = Grid([("PART", 0), ("STATE", 0), ("DETAIL", 0, 24)])
    for h in health:
        parts.add(said(h.part), Text("ok", "green") if h.ok else Text("not well", "bold red"), said(h.detail or "-"))
    out: list[RenderableType] = []
    if health:
        out += [heading("The daemon"), parts, ""]
    offered = Grid([("CAPABILITY", 0), ("MAKES GOOD", 0, 24)])
    for c in able:
        if c.available:
            offered.add(said(c.name, "green"), said(c.promise or "-"))
    missing = sorted((c for c in able if not c.available), key=lambda c: c.promise.startswith("optional"))
    verdict = f"{len(missing)} of {len(able)} capabilities are not offered here" if missing else "all is offered here"
    out.append(heading(f"This kernel: {verdict}"))
    if offered.rows:
        out += [offered, ""]
    if missing:
        out.append(heading("Not here, and why"))
    for c in missing:  # whole lines of their own: a reason in a narrow column is a tower
        spare = c.promise.startswith("optional")
        out.append(said(c.name, "dim" if spare else "yellow").append_text(said(f"  {c.promise or '-'}", "default")))
        out.append(indented(said(c.reason, "dim")))
    show(*out)
