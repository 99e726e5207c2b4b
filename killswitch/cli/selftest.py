"""``selftest``: proof, on a canary of the daemon's own, that the switch can still halt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from killswitch.cli import human
from killswitch.cli.exits import Exit, complain
from killswitch.cli.orders import receipt_grid
from killswitch.cli.output import emit, output_option
from killswitch.cli.plain import plain
from killswitch.cli.session import Session, command
from killswitch.commands import Outcome, Step

if TYPE_CHECKING:
    from killswitch.control.service import OrderResult

MEANS = {
    Step.HOLD: "not a packet before it is judged",
    Step.FLOW: "its traffic flows, out and in",
    Step.DETECT: "its rules fire in the kernel",
    Step.SEVER: "cut off the network",
    Step.FREEZE: "stopped",
    Step.DESTROY_SOCKETS: "its sockets destroyed",
    Step.SILENCE: "not a packet, out or in",
    Step.STILL: "not a moment of CPU time",
    Step.THAW: "let run again",
    Step.RECONNECT: "let onto the network again",
    Step.CLEAN_UP: "nothing of it left",
}


@click.command()
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit.")
@click.option("--last", is_flag=True, help="Prove nothing now: tell of the last one. Needs no more than to look.")
@output_option
@command
def selftest(session: Session, reason: str, last: bool, output: str) -> Exit:
    """Prove that the switch can still halt.

    A canary, a harmless workload of the daemon's own, is watched; a program and a connection that its own rules forbid are
    tried in it; then it is severed, frozen, thawed and released. Its packets are counted all the while: before it is judged
    none leaves, before the cut they flow, after it none comes or goes, after the release they flow again. No other workload
    is touched, and no incident is opened.

    Exit status 0: all of it was seen. 1: a step did not show what it must. 5: it halts, but something could not be tried,
    or tidied up. With --last 0 as long as the last proof passed and is not too old, else 1.
    """
    if last:
        return _last(session, output)
    with session.client() as client:
        result = client.self_test(reason)
    emit(result, output, lambda: show_proof(result))
    code = exit_of(result)
    if code is not Exit.DONE:
        undone = [r for r in result.receipts if r.outcome is not Outcome.DONE]
        told = "; ".join(f"{r.step}: {r.error}" for r in undone) or "nothing was tried"
        complain(f"the proof is {'not complete' if code is Exit.PARTLY else 'FAILED'}: {told}")
    return code


def _last(session: Session, output: str) -> Exit:
    with session.client() as client:
        proof = client.status().proof

    def table() -> None:
        from killswitch.cli.screen import show
        from killswitch.cli.status import proof_line

        show(proof_line(proof, time.time()))

    emit({**plain(proof), "stands": proof.stands}, output, table)
    if not proof.stands:
        why = "there was none yet" if not proof.at_unix else "it is too old" if proof.ok else proof.detail
        complain(f"no proof stands: {why}")
    return Exit.DONE if proof.stands else Exit.FAILED


def exit_of(result: OrderResult) -> Exit:
    """FAILED when halting or letting go was not seen, PARTLY when only something beside it is missing."""
    if result.complete:
        return Exit.DONE
    wrong = {r.step for r in result.receipts if r.outcome is Outcome.FAILED} - {Step.CLEAN_UP}
    return Exit.FAILED if wrong or not any(r.step is Step.SILENCE for r in result.receipts) else Exit.PARTLY


def show_proof(result: OrderResult) -> None:
    """What came of it, the steps in their order, and what each was for."""
    from rich.text import Text

    from killswitch.cli.screen import show

    code = exit_of(result)
    verdict = {
        Exit.DONE: Text("The switch can halt", "bold green"),
        Exit.PARTLY: Text("The switch can halt, but not all was proven", "bold yellow"),
    }.get(code, Text("NOT PROVEN: do not rely on this switch", "bold red"))
    if result.receipts:
        spent = max(r.finished_ns for r in result.receipts) - min(r.started_ns for r in result.receipts)
        verdict.append(f"  (seen on a canary, in {human.duration(spent / 1e9)})", "not bold default")
    show(verdict, receipt_grid(result.receipts, MEANS))
