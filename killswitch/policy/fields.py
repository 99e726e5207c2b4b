"""Where the value of each field of a rule comes from: which event has it, and the lowest tier that can judge it.

What an author may write about a field (its type, its modifiers) is ``catalogue``'s. Text is bytes here, as the workload
chose it; a field with several values (each argument) is a tuple of them, a field that is not there the empty tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

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
    Signal,
    Unanswered,
    Wire,
)
from killswitch.policy.sums import Sums

Subject = Event | Sums  # what a rule is asked about
Values = tuple[Any, ...]  # bytes, int, float, bool or str, as the field's kind says

EVENT_TYPES: Mapping[str, type] = {
    "exec": Exec,
    "fork": Fork,
    "exit": Exit,
    "connect": Connect,
    "unanswered": Unanswered,
    "listen": Listen,
    "wire": Wire,
    "file": File,
    "signal": Signal,
    "denied": Denied,
    "flow": Flow,
    "cgroup_move": CgroupMove,
    "cpu": Cpu,
    "finding": Sums,
}
COMMAND_LINE_BYTES = "process.command_line_bytes"  # in ``extra``: all arguments, NUL-terminated, read later
PROGRAM = (
    "process.exec"  # in ``extra``, for a ``Wire``: the ``Exec`` of the program behind the flow, as far as it is known
)


@dataclass(frozen=True, slots=True)
class Field:
    kind: str  # text, number, flag, ip, or derived (judged from other facts, by the kernel and its twin only)
    tier: int  # the lowest tier that can judge it in an exec rule; every other event's rules are judged in tier 3 or 4
    description: str
    of: Mapping[type, Callable[[Any], Values]]  # the events that hold it; others get it from ``extra``, if at all


def names(event: Exec) -> tuple[bytes, bytes]:
    """What follows the last slash; of a memfd's name, too, which may hold any."""
    return event.executable.rpartition(b"/")[2], event.filename.rpartition(b"/")[2]


def tokens(argv: bytes) -> tuple[bytes, ...]:
    """The arguments in NUL-terminated ``argv``. The last may have been cut off before its NUL."""
    return tuple((argv[:-1] if argv.endswith(b"\0") else argv).split(b"\0")) if argv else ()


def _attribute(name: str) -> Callable[[Any], Values]:
    return lambda event: (getattr(event, name),)


def _on(name: str, *types: type) -> dict[type, Callable[[Any], Values]]:
    return dict.fromkeys(types, _attribute(name))


def _opening(name: str) -> dict[type, Callable[[Any], Values]]:
    """As the kernel reads it: in what goes over a wire a NUL is a byte like others, and no rule can spell it."""
    return {Wire: lambda event: (getattr(event, name).replace(b"\0", b"\1"),)}


def _of_finding(name: str) -> dict[type, Callable[[Any], Values]]:
    """What a rule does not say of its findings is not there."""
    return {Sums: lambda sums: (value,) if (value := getattr(sums.source, name)) else ()}


# Every event that rules are asked about, but for their own findings.
Judged = Exec | Fork | Exit | Connect | Unanswered | Listen | Wire | File | Flow | Signal | Denied | CgroupMove | Cpu
_EVERY = get_args(Judged)

FIELDS: Mapping[str, Field] = {
    "process.name": Field(
        "text", 1, "basename of the executable, and of the file that was asked for", {Exec: names}
    ),
    "process.executable": Field(
        "text", 1, "path of the executable, and of the file that was asked for",
        {Exec: lambda e: (e.executable, e.filename)},
    ),
    "process.args": Field("text", 1, "each argument, the program's own name included", {Exec: lambda e: tokens(e.argv)}),
    "process.command_line": Field(
        "text", 1, "the arguments joined by a blank", {Exec: lambda e: (b" ".join(tokens(e.argv)),) if e.argv else ()}
    ),
    "process.parent.name": Field("text", 1, "basename of the parent's executable", _on("parent_name", Exec)),
    "process.pid": Field("number", 3, "the process's id", _on("pid", *_EVERY)),
    "user.id": Field("number", 3, "the process's user id", _on("uid", Exec, Connect, Unanswered, Listen, Wire, Flow, Denied)),
    "group.id": Field("number", 3, "the process's group id", _on("gid", Exec)),
    "file.inode_of": Field("derived", 1, "the executable is the same file as one of these, whatever it is called", {}),
    "file.memfd": Field("flag", 1, "the executable is a memfd, a file in memory without a name", _on("memfd", Exec)),
    "file.unlinked": Field("flag", 1, "the executable has no name any more", {Exec: lambda e: (e.nlink == 0,)}),
    "process.args_truncated": Field(
        "flag", 1, "the arguments are longer than the window that the kernel reads", _on("truncated", Exec)
    ),
    "file.path": Field("text", 3, "the file that was changed, as the process sees it", _on("path", File)),
    "file.place": Field("text", 3, "what kind of place the file lies in", _on("place", File)),
    "file.content": Field("text", 3, "the beginning of what the file holds then: up to 64 KiB", _on("content", File)),
    "process.reads_program": Field(
        "flag", 4, "the process is a shell or an interpreter that reads its program from its standard input", {}
    ),
    "process.listens": Field(
        "flag", 4, "the process, or the one that it was forked from, has listened for connections", {}
    ),
    "signal.number": Field("number", 3, "the signal: 9 is SIGKILL, 15 SIGTERM, 19 SIGSTOP", _on("number", Signal)),
    "signal.to_daemon": Field("flag", 3, "it went to the daemon of this kill switch", _on("to_daemon", Signal, Denied)),
    "target.name": Field(
        "text", 3, "name of the process outside that was meant (15 bytes), of the file; path of what was not to run",
        _on("target_name", Signal, Denied),
    ),
    "target.pid": Field("number", 3, "id of the process outside that was meant", _on("target_pid", Signal, Denied)),
    "denied.severed": Field("flag", 3, "it was refused because the workload is severed", _on("severed", Denied)),
    "ssh.forward": Field("derived", 1, "the forwardings that an OpenSSH client's options ask for", {}),
    "file.program": Field("text", 3, "what the executable is by its content, whatever it is called: see 'programs'", {}),
    "file.hash.sha256": Field("text", 3, "SHA-256 of the executable, in hexadecimal", {}),
    "ssh.config_unread": Field("flag", 3, "an OpenSSH client's configuration could not be read: a pipe, or gone by then", {}),
    "process.config": Field("text", 3, "content of the files that are given as configuration, up to 64 KiB of each", {}),
    "process.named_files": Field("text", 3, "content of other files named in the arguments that look like configuration", {}),
    "process.env": Field("text", 3, "each NAME=value of the environment that the program began with", {}),
    "destination.ip": Field(
        "ip", 3, "the address that is connected or sent to; of a relay, the inside", _on("destination_ip", Connect, Unanswered)
    ),
    "destination.port": Field(
        "number", 3, "the port that is connected or sent to; of a relay, the inside", _on("destination_port", Connect, Unanswered)
    ),
    "source.ip": Field("ip", 3, "the address that is bound", _on("source_ip", Listen)),
    "source.port": Field("number", 3, "the port that is bound", _on("source_port", Listen)),
    "network.turns_inwards": Field(
        "flag", 4, "the process had connected to another host by TCP, and now connects to this one, or to another inside", {}
    ),
    "network.fanout.hosts": Field("number", 4, "internal hosts that the workload tried at this port in the last 10 s", {}),
    "network.fanout.ports": Field("number", 4, "ports that the workload tried at this internal host in the last 10 s", {}),
    "network.fanout.endpoints": Field("number", 4, "internal hosts times ports that the workload tried in the last 10 s", {}),
    "network.fanout.slow_hosts": Field("number", 4, "internal hosts that the workload tried in the last 10 minutes", {}),
    "network.fanout.slow_ports": Field("number", 4, "ports that it tried at this internal host in the last 10 minutes", {}),
    "network.fanout.unanswered_hosts": Field(
        "number", 4, "internal hosts at which, in the last 10 minutes, all tries of some port were in vain", {}
    ),
    "network.fanout.unanswered_ports": Field(
        "number", 4, "ports of this internal host, or of loopback, at which all tries of 10 minutes were in vain", {}
    ),
    "network.fanout.silent": Field(
        "number", 4, "internal hosts times ports that were sent datagrams, and from which nothing came back, of the last 15 s", {}
    ),
    "network.outside.flows": Field("number", 4, "connections to the outside that the workload has made and holds", {}),
    "network.outside.age": Field(
        "number", 4, "seconds that the workload has held its oldest quiet connection to the outside; 0 = it holds none", {}
    ),
    "network.stdio": Field(
        "text", 4, "which standard files of a program that was executed the connection was: stdin, stdout, stderr",
        {Flow: lambda e: e.stdio},
    ),
    "network.piped": Field(
        "flag", 4, "pipes lead from this connection's program to the process's standard input, and from its output back", {}
    ),
    "network.answered": Field(
        "number", 4, "turns of the far side that were answered, where it spoke first on this connection", {}
    ),
    "network.obeyed": Field(
        "number", 4, "of these, turns upon which the process, by one that descends from it, ran a program before it answered", {}
    ),
    "network.obeyed_first": Field("number", 4, "which turn was the first such; 1 = what the far side said first, 0 = none", {}),
    "network.obeyed_share": Field("number", 4, "share of all turns that were answered that these are, 0 to 1", {}),
    "relay.exchanges": Field(
        "number", 4, "turns of a conversation inside that were handed on from and to this connection, both ways", {}
    ),
    "relay.bytes": Field("number", 4, "bytes inside that were handed on", {}),
    "relay.match": Field("number", 4, "share of all that was said inside that these are, 0 to 1", {}),
    "relay.certainty": Field("number", 4, "bits by which this is no coincidence: -log2 of the chance", {}),
    "wire.sent": Field(
        "text", 2, "what the workload sent first on a TCP connection: up to 8,192 bytes, NULs as 0x01", _opening("sent")
    ),
    "wire.received": Field(
        "text", 2, "what it received first on a TCP connection: up to 8,192 bytes, NULs as 0x01", _opening("received")
    ),
    "remote.ip": Field("ip", 2, "the address of the far side", _on("remote_ip", Wire, Flow)),
    "remote.port": Field("number", 2, "the port of the far side", _on("remote_port", Wire, Flow)),
    "dns.question.name": Field(
        "text", 2, "a name that the workload asks for by DNS, over UDP or TCP, at any port",
        {Wire: lambda e: (e.question,) if e.question else ()},
    ),
    "tls.client.server_name": Field(
        "text", 2, "the name that it calls a server by when it begins TLS (SNI)",
        {Wire: lambda e: (e.server_name,) if e.server_name else ()},
    ),
    "network.direction": Field(
        "text", 2, "outbound: the workload made the connection; inbound: it accepted it",
        {Wire: lambda e: ("outbound" if e.outbound else "inbound",)},
    ),
    "network.transport": Field(
        "text", 2, "tcp, udp, icmp or other", _on("transport", Connect, Unanswered, Listen, Wire, Flow)
    ),
    "event.action": Field(
        "text", 3, "what was done", _on("operation", Connect, Listen) | _on("action", File) | _on("operation", Signal, Denied)
        | {kind: (lambda _, on=on: (on,)) for on, kind in EVENT_TYPES.items()
           if kind not in (Connect, Listen, File, Signal, Denied, Sums)},
    ),
    "cgroup.path": Field("text", 3, "the cgroup that the process was moved to", _on("to_path", CgroupMove)),
    "cpu.cores": Field("number", 4, "CPUs kept busy, mean over the window", _on("cores", Cpu)),
    "cpu.kernel_share": Field("number", 4, "share of the samples that were in the kernel, 0 to 1", _on("kernel_share", Cpu)),
    "cpu.hashing": Field("number", 4, "how much the hot code looks like hashing, 0 to 1", {}),
    "cpu.hashing_seconds": Field("number", 4, "CPU-seconds that the process spent hashing in the last ten minutes", {}),
    "cpu.mixing": Field("number", 4, "share of its time in code that mixes bits, not around it, 0 to 1", {}),
    "cpu.algorithm": Field("text", 4, "hashes whose constants were found at the hot code", {}),
    "cpu.jit": Field("number", 4, "share of the hot code that was made at run time, 0 to 1", {}),
    "workload.cpu.cores": Field("number", 4, "CPUs that all processes of the workload kept busy, mean over the window", {}),
    "workload.cpu.hashing": Field(
        "number", 4, "how much all that ran in the last 30 s looks like hashing, weighed by CPU time, 0 to 1", {}
    ),
    "workload.cpu.hashing_seconds": Field(
        "number", 4, "CPU-seconds that the workload spent hashing in the last ten minutes", {}
    ),
    "process.memory.huge_pages": Field("number", 4, "bytes of a process that hashes that lie in huge pages", {}),
    "process.memory.executable_anonymous": Field(
        "number", 4, "bytes of a process that hashes that are executable and of no file", {}
    ),
    "process.open_msr": Field("flag", 4, "a process that hashes has a CPU's model-specific registers open", {}),
    "process.threads": Field("number", 4, "threads of a process that hashes", {}),
    "process.nice": Field("number", 4, "nice value of a process that hashes, -20 to 19", {}),
    "finding.act": Field("text", 4, "what the finding is evidence of", _of_finding("act")),
    "finding.evidence": Field("text", 4, "the kind of evidence that it is", _of_finding("evidence")),
    "finding.rule": Field("text", 4, "the rule that was found", _of_finding("rule")),
    "finding.policy": Field("text", 4, "the rule's policy", _of_finding("policy")),
    "finding.level": Field("text", 4, "the rule's level", _of_finding("level")),
    "finding.kinds": Field("number", 4, "distinct kinds of evidence for its act", _on("kinds", Sums)),
    "finding.rules": Field("number", 4, "distinct rules that were found of its act", _on("rules", Sums)),
    "finding.count": Field("number", 4, "findings of its act, up to 256 a rule", _on("count", Sums)),
    "finding.acts": Field("number", 4, "distinct acts", _on("acts", Sums)),
}  # fmt: skip

# What is found out by reading files, after the program began (``facts.Facts``). Rules that ask for it are judged then.
INSPECTED = frozenset(
    {"file.program", "file.hash.sha256", "ssh.config_unread", "process.config", "process.named_files", "process.env"}
)


def values_of(name: str, event: Subject, extra: Mapping[str, object]) -> Values:
    """The field's values: from the event, else from ``extra``, else none."""
    kind: type = type(event)
    return reader(name, kind)(event, extra)


@lru_cache(maxsize=1024)
def reader(name: str, kind: type) -> Callable[[Subject, Mapping[str, object]], Values]:
    """What reads the field's values, for events of exactly this type."""
    field = FIELDS[name]
    as_bytes = field.kind == "text"
    get = field.of.get(kind)
    if get is not None:
        of_event = get
        return (lambda event, _: _encoded(of_event(event))) if as_bytes else (lambda event, _: of_event(event))

    return _from_extra(name)


def values_in(name: str, extra: Mapping[str, object]) -> Values:
    """The values of a field that no event holds."""
    return _from_extra(name)(None, extra)


def _from_extra(name: str) -> Callable[[object, Mapping[str, object]], Values]:
    as_bytes = FIELDS[name].kind == "text"

    def from_extra(_: object, extra: Mapping[str, object]) -> Values:
        if name not in extra:
            return ()
        given = extra[name]
        found = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        return _encoded(found) if as_bytes else found

    return from_extra


def _encoded(values: Values) -> Values:
    return tuple(v.encode("utf-8", "surrogateescape") if isinstance(v, str) else v for v in values)
