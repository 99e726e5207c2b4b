"""``kill``, ``sever``, ``freeze``, ``thaw``, ``terminate``, ``release``: orders, and their receipts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from killswitch.cli.exits import Exit, complain
from killswitch.cli.lines import proof
from killswitch.cli.output import emit, output_option
from killswitch.cli.session import Session, command, complete_workload
from killswitch.commands import Outcome, Receipt, Step

if TYPE_CHECKING:
    from killswitch.control.service import OrderResult

F = TypeVar("F", bound=Callable[..., Any])


def _needs_reason(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("say why, in a few words: it is kept in the audit", context, parameter)
    return value


def _order_options(body: F) -> F:
    for option in (
        output_option,
        click.option("--reason", required=True, metavar="TEXT", callback=_needs_reason, help="Why; kept in the audit."),
        click.argument("target", shell_complete=complete_workload),
    ):
        body = option(body)
    return body


_force = click.option("--force", is_flag=True, help="Of 'host': though no way in to take it back can be kept.")


@click.command()
@_order_options
@click.option("--terminate", is_flag=True, help="Kill every process too, once the evidence is kept.")
@click.option("--wait", is_flag=True, help="Return only when the evidence is complete.")
@_force
@command
def kill(session: Session, target: str, reason: str, terminate: bool, wait: bool, force: bool, output: str) -> Exit:
    """Sever and freeze, destroy its sockets, and keep evidence.

    TARGET 'host' cuts the whole host off, but for the operators' sshd and what host_allow lets through, and freezes every
    watched workload; never the host's own processes.

    When this returns 0, no packet leaves or reaches the workload, and none of its processes runs: both were seen in the
    kernel, not assumed. It stays so, whatever becomes of the daemon, until 'killswitch release'.
    """
    with session.client() as client:
        result = client.kill(target, reason, terminate=terminate, wait_for_evidence=wait, force=force)
    return answer(result, output)


@click.command()
@_order_options
@_force
@command
def sever(session: Session, target: str, reason: str, force: bool, output: str) -> Exit:
    """Cut off the network; the processes go on running. TARGET 'host': see kill."""
    with session.client() as client:
        return answer(client.sever(target, reason, force=force), output)


@click.command()
@_order_options
@command
def freeze(session: Session, target: str, reason: str, output: str) -> Exit:
    """Stop every process; the network stays."""
    with session.client() as client:
        return answer(client.freeze(target, reason), output)


@click.command()
@_order_options
@command
def thaw(session: Session, target: str, reason: str, output: str) -> Exit:
    """Let a frozen workload run again; what is severed stays severed."""
    with session.client() as client:
        return answer(client.thaw(target, reason), output)


@click.command()
@_order_options
@command
def terminate(session: Session, target: str, reason: str, output: str) -> Exit:
    """Kill every process of a workload. There is no way back: 'killswitch kill' keeps it and its evidence."""
    with session.client() as client:
        return answer(client.terminate(target, reason), output)


@click.command()
@_order_options
@click.option(
    "--stage",
    type=click.Choice(["thaw", "network", "all"]),
    default="all",
    show_default=True,
    help="thaw: let it run, still severed. network: give the network back. all: both, and close the incident.",
)
@command
def release(session: Session, target: str, reason: str, stage: str, output: str) -> Exit:
    """Take containment back, in stages.

    Look at it first: 'killswitch incidents ID' and 'killswitch evidence ID'. '--stage thaw' lets it run, but without a
    network.
    """
    with session.client() as client:
        return answer(client.release(target, reason, stage=stage), output)


def answer(result: OrderResult, output: str) -> Exit:
    """Print what an order did; the exit code that says whether all of it was done."""
    emit(result, output, lambda: show_result(result))
    code = exit_of(result)
    if code is not Exit.DONE:
        undone = sorted({str(r.step) for r in result.receipts if r.outcome is not Outcome.DONE})
        steps = f": {', '.join(undone)}" if undone else ""
        how = "only partly done" if code is Exit.PARTLY else "not done"
        complain(f"{result.workload.name}: the order was {how}{steps}; it is {result.workload.observed} now")
    return code


def exit_of(result: OrderResult) -> Exit:
    """DONE when every step was done and its proof observed, PARTLY when something was, else FAILED."""
    if result.complete:
        return Exit.DONE
    return Exit.PARTLY if any(r.outcome is Outcome.DONE for r in result.receipts) else Exit.FAILED


def show_result(result: OrderResult) -> None:
    """The workload's name and state, its receipts, and where to go from here."""
    from killswitch.cli.screen import containment, said, show

    w = result.workload
    show(said(w.name, "bold").append(" is ", "not bold").append_text(containment(w.observed, w.desired)))
    if result.receipts:
        show(receipt_grid(result.receipts))
    if result.incident and str(w.observed) != "free":
        show(said(f"Look at it: killswitch incidents {result.incident}", "dim"))


def receipt_grid(receipts: Sequence[Receipt], means: Mapping[Step, str] = MappingProxyType({})) -> Any:
    """Receipts as a table, in the order in which the steps began; AT counts from the first. ``means``: a word on steps."""
    from killswitch.cli import human
    from killswitch.cli.screen import Grid, outcome, said

    grid = Grid([("STEP", 0), ("OUTCOME", 0), (">AT", 3), (">TOOK", 2), ("WHAT", 1, 18), ("PROOF", 0, 24)])
    ordered = sorted(receipts, key=lambda r: r.started_ns)
    for r in ordered:
        at, took = (r.started_ns - ordered[0].started_ns) / 1e9, (r.finished_ns - r.started_ns) / 1e9
        what = means.get(r.step, "-")
        grid.add(str(r.step), outcome(r.outcome), f"+{human.duration(at)}", human.duration(took), what, said(proof(r)))
    return grid
