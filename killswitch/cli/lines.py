"""One line a thing that happened, for people. Colour by click: a stream of events does not need rich."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from killswitch.cli import human
from killswitch.cli.escape import command_line, printable
from killswitch.commands import Finding, Outcome, Receipt
from killswitch.events import (
    Answered,
    CgroupCreated,
    CgroupMove,
    CgroupRemoved,
    Connect,
    Cpu,
    Denied,
    Done,
    Event,
    Exec,
    Exit,
    File,
    Flow,
    Fork,
    Listen,
    Lost,
    Released,
    Signal,
    Tick,
    Unanswered,
    Unattended,
    Wire,
    WorkloadAdded,
    WorkloadRemoved,
)
from killswitch.machinecode import Code

_LEVEL = {"critical": "bright_red", "high": "red", "medium": "yellow", "low": "cyan", "informational": "white"}


def line(when: str, workload: str, kind: str, what: str) -> str:
    """The columns of a stream. ``when`` and ``what`` are safe already, ``workload`` is escaped here."""
    return f"{click.style(when, dim=True)}  {printable(workload) or '-':<16} {kind:<11} {what}"


def describe(thing: Event | Finding | Receipt, *, incident: str = "") -> tuple[str, str]:
    """(kind, what happened). What a workload chose is escaped."""
    if isinstance(thing, Finding):
        return "finding", finding(thing, incident)
    if isinstance(thing, Receipt):
        return "receipt", receipt(thing, incident)
    kind, tell = _EVENTS[type(thing)]
    return kind, tell(thing)


def finding(f: Finding, incident: str) -> str:
    level = click.style(f"{f.level} {printable(f.rule)}", fg=_LEVEL.get(f.level, "white"), bold=True)
    where = f" [{printable(incident)}]" if incident else ""
    done = f"; in the kernel: {', '.join(f.done_in_kernel)}" if f.done_in_kernel else ""
    mode = " (monitor: nothing was done)" if f.mode == "monitor" else ""
    return f"{level}{where} {printable(f.summary or f.title)}{done}{mode}"


def receipt(r: Receipt, incident: str) -> str:
    colour = {Outcome.DONE: "green", Outcome.FAILED: "red"}.get(r.outcome, "yellow")
    where = f" [{printable(incident)}]" if incident else ""
    took = human.duration((r.finished_ns - r.started_ns) / 1e9)
    return f"{click.style(f'{r.step} {r.outcome}', fg=colour, bold=True)}{where} in {took}: {printable(proof(r))}"


def proof(r: Receipt) -> str:
    """What was observed, on one line; an error comes first. Not yet escaped."""
    seen = " ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in sorted(r.proof.items()))
    return "; ".join(part for part in (r.error, seen) if part) or "-"


def _exec(e: Exec) -> str:
    acts = [word for flag, word in ((Done.KILLED, "killed"), (Done.SEVERED, "severed")) if flag in e.done]
    act = (
        " " + click.style("+".join(acts) + " before its first instruction", fg="bright_red", bold=True) if acts else ""
    )
    odd = "".join(f" ({w})" for w, on in (("memfd", e.memfd), ("no name any more", e.nlink == 0 and not e.memfd)) if on)
    cut = " …" if e.truncated else ""
    return f"{_who(e)} uid {e.uid} {printable(e.executable)}{odd}: {command_line(e.args)}{cut}{act}"


def _who(e: Any) -> str:
    return f"pid {e.pid}"


def _address(ip: str, port: int) -> str:
    return f"[{printable(ip)}]:{port}" if ":" in ip else f"{printable(ip)}:{port}"


def _denied(denied: bool) -> str:
    return " " + click.style("denied", fg="bright_red", bold=True) if denied else ""


def _connect(e: Connect) -> str:
    to = _address(e.destination_ip, e.destination_port)
    return f"{_who(e)} ({printable(e.comm)}) {e.operation} {e.transport} {to}{_denied(e.denied)}"


def _unanswered(e: Unanswered) -> str:
    return (
        f"{_who(e)} ({printable(e.comm)}) {e.transport} {_address(e.destination_ip, e.destination_port)} did not answer"
    )


def _answered(e: Answered) -> str:
    return f"{_who(e)} ({printable(e.comm)}) {e.transport} {_address(e.destination_ip, e.destination_port)} answered"


def _listen(e: Listen) -> str:
    at = _address(e.source_ip, e.source_port)
    return f"{_who(e)} ({printable(e.comm)}) {e.operation} {e.transport} {at}{_denied(e.denied)}"


def _wire(e: Wire) -> str:
    acts = [word for flag, word in ((Done.DENIED, "denied"), (Done.SEVERED, "severed")) if flag in e.done]
    act = " " + click.style("+".join(acts), fg="bright_red", bold=True) if acts else ""
    opening = e.question or e.server_name or (e.sent if e.direction == "sent" else e.received)
    where = f"{'to' if e.direction == 'sent' else 'from'} {_address(e.remote_ip, e.remote_port)}"
    return f"{_who(e)} ({printable(e.comm)}) {e.transport} {where}: {printable(opening)}{act}"


def _flow(e: Flow) -> str:
    ends = f"{_address(e.local_ip, e.local_port)} to {_address(e.remote_ip, e.remote_port)}"
    ended = ", closed" if e.closed else ""
    return f"{_who(e)} ({printable(e.comm)}) {e.transport} {ends}: {e.sent_bytes} B out, {e.received_bytes} B in{ended}"


def _signal(e: Signal) -> str:
    whom = f"{printable(e.target_name)}({e.target_pid}){', the daemon' if e.to_daemon else ''}"
    return f"{_who(e)} {e.operation} {e.number} to {whom}"


def _denied_event(e: Denied) -> str:
    who = f"{_who(e)} ({printable(e.comm)}) {e.operation}"
    whom = f" {printable(e.target_name)}" if e.target_name else f" {e.number}"
    pid = f"({e.target_pid})" if e.target_pid else ""
    return who + whom + pid + (" while severed" if e.severed else "") + _denied(True)


def _exit(e: Exit) -> str:
    status, number = e.exit_code >> 8 & 0xFF, e.exit_code & 0x7F
    return f"{_who(e)} killed by signal {number}" if number else f"{_who(e)} status {status}"


def _move(e: CgroupMove) -> str:
    gone = "" if e.to_workload else click.style(" out of what is watched", fg="yellow", bold=True)
    return f"{_who(e)} to {printable(e.to_path)}{gone}"


def _cpu(e: Cpu) -> str:
    return f"{_who(e)} {e.cores:.2f} cores, {e.kernel_share:.0%} in the kernel"


def _lost(e: Lost) -> str:
    return click.style(f"{human.plural(e.count, 'event')} lost: {printable(e.reason)}", fg="yellow", bold=True)


def _unattended(e: Unattended) -> str:
    return click.style(
        f"severed by the kernel: no daemon for more than {e.grace_ms / 1000:g} s", fg="yellow", bold=True
    )


_EVENTS: dict[type, tuple[str, Callable[[Any], str]]] = {
    Exec: ("exec", _exec),
    Fork: ("fork", lambda e: f"{_who(e)} from {e.ppid}"),
    Exit: ("exit", _exit),
    Connect: ("connect", _connect),
    Unanswered: ("unanswered", _unanswered),
    Answered: ("answered", _answered),
    Listen: ("listen", _listen),
    Wire: ("wire", _wire),
    Signal: ("signal", _signal),
    Denied: ("denied", _denied_event),
    File: ("file", lambda e: f"{_who(e)} {e.action} {printable(e.path)} ({printable(e.place)})"),
    Flow: ("flow", _flow),
    CgroupMove: ("cgroup_move", _move),
    CgroupCreated: ("cgroup", lambda e: f"made {printable(e.path)}"),
    CgroupRemoved: ("cgroup", lambda e: f"removed {printable(e.path)}"),
    Cpu: ("cpu", _cpu),
    Code: ("code", lambda e: f"{_who(e)} code at {human.plural(len(e.blocks), 'address', 'addresses')} read"),
    Lost: ("lost", _lost),
    Unattended: ("unattended", _unattended),
    Tick: ("tick", lambda e: ""),
    WorkloadAdded: ("workload", lambda e: f"{printable(e.name)} is watched: {printable(e.cgroup)}"),
    WorkloadRemoved: ("workload", lambda e: f"{e.workload} is not watched any more"),
    Released: ("workload", lambda e: click.style("released", fg="green")),
}
