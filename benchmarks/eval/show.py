"""The outcomes as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.eval import score
from benchmarks.eval.model import MALICIOUS, Case
from benchmarks.eval.outcome import Outcome


def line(case: Case, outcome: Outcome) -> str:
    """One line for a case that has ended, in rich's markup."""
    if outcome.error:
        return f"[bold red]NOT RUN[/] {case.id}: {escape(outcome.error)}"
    if not case.malicious:
        word = outcome.harm(status=case.status)
        mark = f"[bold red]{word.upper()}[/]" if word else "[green]left alone[/]"
        rules = ", ".join(sorted({f"{f.rule}{'!' * f.acts}" for f in outcome.found}))
        return f"{mark} {case.id} [dim]{outcome.seconds:.1f} s{' · ' + rules if rules else ''}[/]"
    if outcome.mode != "enforce":
        mark = "[green]works[/]" if outcome.goal_reached else "[bold red]DOES NOT WORK[/]"
        rules = ", ".join(sorted({f"{f.rule}{'!' * f.acts}" for f in outcome.found}))
        return f"{mark} {case.id} [dim]{outcome.seconds:.1f} s · {rules or 'nothing found'}[/]"
    mark = f"[green]{outcome.stopped}[/]" if outcome.good() else "[bold red]ESCAPED[/]"
    acting = sorted((f for f in outcome.found if f.acts), key=lambda f: f.after_s)
    rules = acting[0].rule if acting else ", ".join(sorted({f.rule for f in outcome.found})) + " (alerts)"
    when = f"{outcome.verdict_s:.2f} s" if outcome.verdict_s is not None else "—"
    reached = " · [yellow]goal reached[/]" if outcome.goal_reached else ""
    known = f" · known: {escape(case.escapes)}" if case.escapes else ""
    return f"{mark} {case.id} [dim]{rules} · {when} · {outcome.bytes_left} B left[/]{reached}{known}"


def report(console: Console, outcomes: Sequence[Outcome], cases: Sequence[Case]) -> None:
    """Everything: by class, by evidence, what was done to innocents, the weakest points."""
    malicious = [o for o in outcomes if o.malicious]
    innocent = [o for o in outcomes if not o.malicious]
    if malicious and malicious[0].mode != "enforce":
        console.print(_evidence(malicious, cases))
    elif malicious:
        console.print(_classes(malicious))
        console.print(_evidence(malicious, cases))
        _escapes(console, malicious, cases)
        _weakest(console, malicious)
    if innocent:
        _harm(console, innocent, cases)


def _seconds(value: float | None) -> str:
    return "—" if value is None else f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _classes(outcomes: list[Outcome]) -> Table:
    shown = Table(title="Malicious variants, by class", box=box.SIMPLE_HEAD, title_style="bold")
    for heading in (
        "class",
        "variants",
        "recall",
        "contained",
        "denied",
        "verdict p50",
        "p99",
        "bytes p50",
        "max",
        "none left",
    ):
        shown.add_column(heading, justify="left" if heading == "class" else "right")
    kinds = [k for k in MALICIOUS if any(o.kind == k for o in outcomes)]
    for kind in (*kinds, "all"):
        c = score.caught(o for o in outcomes if kind in (o.kind, "all"))
        if kind == "all":
            shown.add_section()
        colour = "green" if c.recall == 1 else "bold red"
        shown.add_row(
            kind,
            str(c.cases),
            f"[{colour}]{c.recall:.1%}[/]",
            str(c.contained),
            str(c.denied),
            _seconds(c.verdict_p50_s),
            _seconds(c.verdict_p99_s),
            f"{c.bytes_p50:,}",
            f"{c.bytes_max:,}",
            str(c.silent),
        )
    return shown


def _evidence(outcomes: list[Outcome], cases: Sequence[Case]) -> Table:
    shown = Table(title="What each kind of evidence came to, alone", box=box.SIMPLE_HEAD, title_style="bold")
    for heading in ("evidence", "acted on", "only alerted on", "nothing else acted on", "was to act on, and did not"):
        shown.add_column(heading, justify="left" if heading == "evidence" else "right")
    for row in score.alone(outcomes, cases):
        shown.add_row(row.evidence, str(row.acts), str(row.alerts), str(len(row.only)), str(len(row.missed)))
    return shown


def _escapes(console: Console, outcomes: list[Outcome], cases: Sequence[Case]) -> None:
    known = {c.id: c.escapes for c in cases}
    escaped = [o for o in outcomes if not o.good()]
    if escaped:
        console.print("\n[bold red]Escaped:[/]")
    for o in escaped:
        why = o.error or f"{o.bytes_left} B left, {'goal reached' if o.goal_reached else 'goal not reached'}"
        if o.bytes_after_cut:
            why += f", {o.bytes_after_cut} B after the cut"
        why += f"; {', '.join(sorted({f.rule for f in o.found})) or 'nothing found'}"
        if known.get(o.case):
            why += f"; known: {known[o.case]}"
        console.print(f"  {o.case} [dim]({o.kind}): {escape(why)}[/]")


def _weakest(console: Console, outcomes: list[Outcome]) -> None:
    if weak := score.weakest(outcomes):
        console.print(
            "\n[bold]Weakest of the stopped[/] [dim](reached their goal first, let most out, took longest)[/]"
        )
    for o in weak:
        goal = "goal reached, " if o.goal_reached else ""
        how = f"{goal}{o.bytes_left:,} B left, {_seconds(o.verdict_s)}, {', '.join(o.caught_by)}"
        console.print(f"  {o.case} [dim]({o.kind}): {how}[/]")


def _harm(console: Console, outcomes: list[Outcome], cases: Sequence[Case]) -> None:
    h = score.harm(outcomes, cases)
    colour = "green" if not h.harmed else "bold red"
    console.print(
        f"\n[bold]Innocent workloads:[/] {h.cases}; [{colour}]{h.harmed} harmed[/]: false severs {len(h.severed)}, "
        f"false kills {len(h.killed)}, denied {len(h.denied)}, broken {len(h.broken)}; {h.alerts} alerts"
    )
    for word, names in (("severed", h.severed), ("killed", h.killed), ("denied", h.denied), ("broken", h.broken)):
        for name in names:
            o = next(o for o in outcomes if o.case == name)
            rules = ", ".join(sorted({f.rule for f in o.found if f.acts}))
            why = o.error or rules or f"status {o.status}, missing {o.output_missing}: {o.output[-200:].strip()}"
            console.print(f"  [bold red]{word}[/] {name} [dim]{escape(why)}[/]")
    for rule, count in h.noisy[:12]:
        console.print(f"  [dim]alerts: {rule} on {count} of {h.cases}[/]")
