"""One line for people: who did what. Nothing that a workload wrote can break the line or the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from killswitch.detect.processes import Process
from killswitch.events import (
    CgroupMove,
    Connect,
    Cpu,
    Denied,
    Event,
    Exec,
    Exit,
    File,
    Flow,
    Fork,
    Listen,
    Lost,
    Signal,
    Unanswered,
    Unattended,
    Wire,
    text,
)

MAX_TEXT = 160  # characters of what a workload wrote
UNKNOWN = "?"


def printable(raw: bytes | str, limit: int = MAX_TEXT) -> str:
    """Control characters, broken UTF-8 and bidirectional marks become escapes; what is too long is cut in the middle."""
    told = text(raw) if isinstance(raw, bytes) else raw
    if len(told) > 2 * limit:  # escape no megabytes
        told = told[:limit] + told[-limit:]
    told = "".join(c if c.isprintable() else _escape(c) for c in told)
    if len(told) > limit:
        head = limit * 2 // 3
        told = f"{told[:head]} … {told[head - limit + 3 :]}"
    return told


def _escape(c: str) -> str:
    n = ord(c)
    if 0xDC80 <= n <= 0xDCFF:  # a byte that is not UTF-8, kept by surrogateescape
        return f"\\x{n - 0xDC00:02x}"
    if n < 0x100:
        return f"\\x{n:02x}"
    return f"\\u{n:04x}" if n < 0x10000 else f"\\U{n:08x}"


def command_line(args: Iterable[str]) -> str:
    """Arguments as a person would type them: quoted where a blank or nothing would mislead."""
    return printable(" ".join(a if a and not set(a) & set(" \t\n'\"\\") else repr(a) for a in args))


def lineage(process: Process | None, pid: int, *, name: bytes = b"") -> str:
    """``bash(12) → ssh(13)``"""
    if process is None:
        return _who(name, pid)
    chain = [*process.ancestors[-3:], (process.pid, process.name)]
    told = " → ".join(_who(name, pid) for pid, name in chain if name or pid == process.pid)
    return ("… → " if len(process.ancestors) > 3 else "") + told


def _who(name: bytes, pid: int) -> str:
    return f"{printable(name, 32) or UNKNOWN}({pid})"


def summarise(event: Event, process: Process | None, *, reasons: str = "", held_ns: int = 0) -> str:
    """What ``event`` says, as a sentence without a full stop."""
    match event:
        case Exec():
            who = lineage(process, event.pid, name=event.executable.rpartition(b"/")[2])
            args = _args(event.argv)
            told = f"{who} ran {command_line(args) or printable(event.executable)}"
            if args[:1] != (text(event.executable),):
                told += f" [{printable(event.executable)}{', a memfd' if event.memfd else ''}]"
            return told + (f" ({event.argv_total} bytes of arguments)" if event.truncated else "")
        case Connect():
            who = lineage(process, event.pid, name=event.comm)
            verb = {"sendmsg": "sent to", "packet": "sent packets to"}.get(event.operation, "connected to")
            where = _address(event.destination_ip, event.destination_port)
            return f"{who} {'tried: ' if event.denied else ''}{verb} {where} ({event.transport})"
        case Unanswered():
            who = lineage(process, event.pid, name=event.comm)
            return f"{who} was not answered by {_address(event.destination_ip, event.destination_port)} ({event.transport})"
        case Listen():
            who = lineage(process, event.pid, name=event.comm)
            verb = "listened on" if event.operation == "listen" else "bound"
            where = _address(event.source_ip, event.source_port)
            return f"{who} {'tried: ' if event.denied else ''}{verb} {where} ({event.transport})"
        case Wire():
            who = lineage(process, event.pid, name=event.comm)
            sent = event.direction == "sent"
            verb = "tried to send" if event.done else "sent"
            verb = verb if sent else ("was to be sent" if event.done else "was sent")
            where = _address(event.remote_ip, event.remote_port)
            if event.question:
                verb, what = "tried to ask" if event.done else "asked", printable(event.question)
                return f"{who} {verb} {where} ({event.transport}) for the name {what}"
            if event.server_name:
                verb, what = "tried to begin TLS" if event.done else "began TLS", printable(event.server_name)
                return f"{who} {verb} with {where}, calling it {what}"
            what = printable(event.sent if sent else event.received, MAX_TEXT // 2)
            return f"{who} {verb} {'to' if sent else 'by'} {where} ({event.transport}): {what}"
        case File():
            verb = {"create": "made", "write": "wrote", "rename": "put in place", "delete": "deleted"}.get(
                event.action, "changed"
            )
            return f"{lineage(process, event.pid)} {verb} {printable(event.path)} ({event.place})"
        case Flow():
            who = lineage(process, event.pid, name=event.comm)
            where = _address(event.remote_ip, event.remote_port)
            told = f"{who} holds a connection to {where} ({event.transport}), {event.sent_bytes} bytes sent and"
            return f"{told} {event.received_bytes} received" + (f": {reasons}" if reasons else "")
        case Signal():
            whom = (
                "this daemon"
                if event.to_daemon
                else f"{printable(event.target_name, 32) or UNKNOWN}({event.target_pid})"
            )
            what = "traced" if event.operation == "ptrace" else f"sent {_signal_name(event.number)} to"
            return f"{lineage(process, event.pid)} {what} {whom}, outside the workload"
        case Denied():
            return f"{lineage(process, event.pid, name=event.comm)} was refused {refused(event)}"
        case Cpu():
            told = f"{lineage(process, event.pid)} keeps {event.cores:.2f} CPUs busy"
            told += f" for {held_ns / 1e9:.0f} s" if held_ns else ""
            return told + (f": {reasons}" if reasons else "")
        case CgroupMove():
            to = printable(event.to_path) or f"cgroup {event.to_cgroup}"
            kind = "another workload" if event.to_workload else "which is not watched"
            told = f"{lineage(process, event.pid)} left the workload's cgroup for {to}, {kind}"
            return told + (f"; process {event.moved_by} moved it" if event.moved_by else "")
        case Lost(reason="execs_flooded" | "flows_flooded"):
            what = "execs" if event.reason == "execs_flooded" else "forks, exits and connections"
            return f"{event.count} {what} more than can be read were left out, so that no other workload's are lost"
        case Lost():
            return f"{event.count} events were lost ({printable(event.reason)}): something may have gone unseen"
        case Unattended():
            kept = "it stays so until it is released" if event.keep else "it is let go again"
            return f"severed by the kernel, as no daemon was there for more than {event.grace_ms / 1000:g} s; {kept}"
        case Fork():
            return f"{lineage(process, event.ppid)} forked {event.pid}"
        case Exit():
            return f"{lineage(process, event.pid)} ended with {event.exit_code}"
        case _:
            return type(event).__name__


_REFUSED = {
    "exec": "to run {name}",
    "socket": "a socket of family {number}",
    "connect": "to connect over a socket of family {number}",
    "send": "to send over a socket of family {number}",
    "receive": "to receive over a socket of family {number}",
    "ptrace": "to take over {target}",
    "kill": "to send {signal} to {target}",
    "bpf": "bpf(), command {number}",
    "pin": "to change what is pinned in bpffs",
    "cgroup_file": "to write the cgroup file {name}",
    "kernel_code": "to load code into the kernel {name}",
}


def refused(event: Denied) -> str:
    """What an LSM program has refused, and why."""
    name = printable(event.target_name, MAX_TEXT // 2)
    target = "this daemon" if event.to_daemon else f"{name or UNKNOWN}({event.target_pid}), outside the workload"
    told = _REFUSED.get(event.operation, event.operation).format(
        name=name, number=event.number, signal=_signal_name(event.number), target=target
    )
    return told.rstrip() + (": it is severed" if event.severed else "")


# Those that end or stop, and the usual others; numbers as on x86 and arm.
_SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 6: "SIGABRT", 9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2",
    13: "SIGPIPE", 15: "SIGTERM", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP",
}  # fmt: skip


def _signal_name(number: int) -> str:
    return _SIGNALS.get(number, f"signal {number}")


def _args(argv: bytes) -> tuple[str, ...]:
    """The first and the last of them: a command line may have megabytes."""
    raw = argv.removesuffix(b"\0")
    if len(raw) > 4 * MAX_TEXT:
        raw = raw[: 2 * MAX_TEXT] + raw[-2 * MAX_TEXT :]
    return tuple(map(text, raw.split(b"\0"))) if argv else ()


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
