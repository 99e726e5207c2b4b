"""Replays the incident and shows what was caught, how fast, with proof. Exit status 0 only if all of it held."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from killswitch.commands import Finding, Outcome, Receipt, Response, Step
from killswitch.control.client import Client
from killswitch.control.service import EventFilter, IncidentInfo
from tests.demo.acts import Act, innocent_work, rogue_acts
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter
from tests.rig.netns import FarSide
from tests.rig.pool import Pool
from tests.rig.sshd import Sshd

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
START = time.monotonic()


def say(style: str, text: str) -> None:
    console.print(f"[dim]{time.monotonic() - START:6.2f}s[/] [{style}]{text}[/]")


@dataclass(slots=True)
class Outcomes:
    act: Act
    incident: IncidentInfo | None = None
    contained: str = ""
    severed_unix_ns: int = 0
    packets_after: int = -1

    @property
    def held(self) -> bool:
        found = self.incident is not None and any(f.rule in self.act.rules for f in self.incident.findings)
        done = self.incident is not None and all(r.outcome is Outcome.DONE for r in self.incident.receipts)
        return found and done and self.contained == "severed+frozen" and self.packets_after == 0


def follow(client: Client, stop: threading.Event) -> None:
    """Tell live what the daemon sees and does."""
    with contextlib.suppress(Exception):  # the daemon goes away at the end, in the middle of the stream
        for item in client.stream(EventFilter(kinds=("finding", "receipt"))):
            if stop.is_set():
                return
            where = escape(item.workload_name)
            if item.finding:
                colour = {"critical": "bold red", "high": "red", "medium": "yellow"}.get(item.finding.level, "dim")
                say(colour, f"  {where}: {escape(item.finding.rule)}: {escape(item.finding.summary)}")
            elif item.receipt:
                mark = "green" if item.receipt.outcome is Outcome.DONE else "bold red"
                proof = ", ".join(f"{k}={v}" for k, v in list(item.receipt.proof.items())[:4] if len(str(v)) < 40)
                told = escape(item.receipt.error or proof)
                say(mark, f"  {where}: {item.receipt.step} {item.receipt.outcome} [dim]{told}[/]")


def wait_contained(client: Client, outcome: Outcomes, started: float) -> None:
    while time.monotonic() - started < outcome.act.seconds:
        for incident in client.incidents(open_only=True, limit=50):
            if incident.workload_name != outcome.act.name:
                continue
            if any(r.step is Step.FREEZE for r in incident.receipts):
                outcome.incident = incident
                workload = next(w for w in client.workloads() if w.name == outcome.act.name)
                outcome.contained = str(workload.observed)
                # The cut on the far side's clock: receipts are in monotonic time, packets in real time.
                offset = time.time_ns() - time.monotonic_ns()
                outcome.severed_unix_ns = receipt(incident, Step.SEVER).finished_ns + offset  # type: ignore[union-attr]
                return
        time.sleep(0.05)


def receipt(incident: IncidentInfo, step: Step) -> Receipt | None:
    return next((r for r in incident.receipts if r.step is step), None)


def micro(nanoseconds: int | None) -> str:
    return "—" if nanoseconds is None else f"{nanoseconds / 1000:,.0f}"


def table(outcomes: list[Outcomes], innocent: tuple[int, str, int], width: int) -> Table:
    """One row an act; what was done is left out where there is no room for it."""
    roomy = width >= 100
    shown = Table(title="What was caught", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD, expand=True)
    shown.add_column("act", ratio=3)
    shown.add_column("rule", width=18)
    if roomy:
        shown.add_column("what was done", ratio=3)
    for heading in ("µs to\nverdict", "µs to\nsevered", "µs to\nfrozen", "packets\nafter"):
        shown.add_column(heading, justify="right", width=7, no_wrap=True)
    shown.add_column("held", width=6, no_wrap=True)
    for o in outcomes:
        finding = next((f for f in o.incident.findings if f.rule in o.act.rules), None) if o.incident else None
        done = [f"{r}*" for r in finding.done_in_kernel] if finding else []
        done += [str(r.step) for r in o.incident.receipts if f"{r.step}*" not in done] if o.incident else []
        rule = finding.rule if finding else "[red]not found[/]"
        mark = "[green]yes[/]" if o.held else "[bold red]NO[/]"
        packets = str(o.packets_after) if o.packets_after >= 0 else "—"
        shown.add_row(
            o.act.title, rule, *[", ".join(done).replace("_", " ")] * roomy, *times(o, finding), packets, mark
        )
    status, containment, acted = innocent
    good = status == 0 and containment == "free" and not acted
    mark = f"[green]exit {status}[/]" if good else f"[bold red]exit {status}[/]"
    rule = "none" if not acted else f"[bold red]{acted} acted[/]"
    shown.add_section()
    shown.add_row(
        "innocent: compile, ssh ls -R, checksum", rule, *[f"left alone ({containment})"] * roomy, "", "", "", "", mark
    )
    return shown


def times(o: Outcomes, finding: Finding | None) -> tuple[str, str, str]:
    """Microseconds from the act to the verdict, to severed and to frozen."""
    if not o.incident or not finding:
        return "—", "—", "—"
    at = finding.event.time_ns
    sever, freeze = receipt(o.incident, Step.SEVER), receipt(o.incident, Step.FREEZE)
    in_kernel = Response.SEVER in finding.done_in_kernel  # with the verdict, by the same program
    return (
        micro(finding.verdict_ns),
        micro(finding.verdict_ns if in_kernel else sever.finished_ns - at if sever else None),
        micro(freeze.finished_ns - at if freeze else None),
    )


def play(daemon: Daemon, directory: Path, stack: contextlib.ExitStack) -> bool:
    far = stack.enter_context(FarSide("ks-demo"))
    counter = stack.enter_context(Counter(far))
    pools = (stack.enter_context(Pool(far, 3333)), stack.enter_context(Pool(far, 3334)))
    friendly = stack.enter_context(Sshd(far, directory / "sshd", port=22))
    outside = stack.enter_context(Sshd(far, directory / "sshd-outside", port=2222))
    client = daemon.client
    stop = threading.Event()
    follower = threading.Thread(target=follow, args=(client, stop), daemon=True)
    follower.start()

    def start(name: str, argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            daemon.command("run", "--name", name, "--", *argv),
            env=daemon.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(lambda: process.poll() is None and process.kill())
        return process

    say("bold", "innocent: a compile, an ssh host ls -R and a checksum begin")
    innocent = start("innocent", innocent_work(directory, friendly))
    outcomes = [Outcomes(act) for act in rogue_acts(directory, far, pools, outside)]
    started = {}
    for outcome in outcomes:
        say("bold", f"{outcome.act.name}: {outcome.act.title}")
        started[outcome.act.name] = time.monotonic()
        start(outcome.act.name, outcome.act.argv)
        if outcome.act.name != "quiet-miner":  # it takes its twenty seconds while the others come and go
            wait_contained(client, outcome, started[outcome.act.name])
    say("bold", "waiting for the quiet miner's hashing to be called sustained")
    wait_contained(client, outcomes[0], started["quiet-miner"])

    status = innocent.wait(60)
    acted = [i for i in client.incidents(open_only=False, limit=100) if i.workload_name == "innocent" and i.receipts]
    mine = next((w for w in client.workloads() if w.name == "innocent"), None)
    for outcome in outcomes:
        if outcome.incident:  # once more: evidence is captured behind the cut, and its receipt came later
            outcome.incident = client.incident(outcome.incident.id)
        if outcome.severed_unix_ns:
            heard = counter.since(outcome.severed_unix_ns)
            outcome.packets_after = sum(p.destination_port in outcome.act.ports for p in heard)
    stop.set()

    console.print()
    console.print(table(outcomes, (status, str(mine.observed) if mine else "free", len(acted)), console.width))
    heard_before = {o.act.name: sum(p.destination_port in o.act.ports for p in counter.since(0)) for o in outcomes}
    console.print(
        f"[dim]Counted at the far side of the wire: {len(counter.packets):,} packets in all; from the acts "
        + ", ".join(f"{name} {count}" for name, count in heard_before.items())
        + f". Shares that reached a pool: {pools[0].shares} from the named miner, {pools[1].shares} from the renamed one."
        + " Times run from the kernel's record of the act (for a scan, its 200th port; for hashing, the end of its time).\n"
        "* by the data plane itself, in the kernel, before the program's first instruction.[/]"
    )
    return all(o.held for o in outcomes) and status == 0 and not acted and pools[0].logins == 0


def main() -> int:
    say("bold", "starting the daemon, with its own state, pins and cgroups, and the shipped policies")
    directory = Path(tempfile.mkdtemp(prefix="ks-demo-"))
    try:
        with Daemon("ks-demo") as daemon, contextlib.ExitStack() as stack:
            say("green", f"armed {daemon.ready_seconds:.2f} s after its start")
            held = play(daemon, directory, stack)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    console.print(
        f"\n[bold green]All of it held.[/] [dim]{time.monotonic() - START:.0f} s; nothing was left behind.[/]"
        if held
        else "\n[bold red]Not all of it held: see the table.[/]"
    )
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
