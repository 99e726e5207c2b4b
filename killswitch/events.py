"""What the kernel saw: the facts that go into the engine. Nothing here does anything.

Times are nanoseconds of CLOCK_MONOTONIC. A workload is named by the id of its cgroup (``workload``), a process by
``pid`` (the kernel's tgid) and ``start_ticks`` (its start in clock ticks since boot, field 22 of ``/proc/PID/stat``):
together with the boot id they make the process's ``entity_id``, which no later process can have.

Bytes that a workload chose (paths, arguments, names) are kept as ``bytes`` and decoded with ``surrogateescape``, so
that nothing it writes can be lost or can raise.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from killswitch.machinecode import Code


def text(raw: bytes) -> str:
    """Decode bytes that a workload chose; never raises, never loses a byte."""
    return raw.decode("utf-8", "surrogateescape")


@cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def entity_id(pid: int, start_ticks: int) -> str:
    """The identity of a process, as ECS ``process.entity_id``: ``<boot id>:<tgid>:<start in ticks since boot>``."""
    return f"{boot_id()}:{pid}:{start_ticks}"


class Transport(enum.StrEnum):
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    OTHER = "other"


class Done(enum.IntFlag):
    """What the data plane itself has done about an exec or a flow, before user space heard of it."""

    NOTHING = 0
    KILLED = 1
    SEVERED = 2
    DENIED = 4  # the packet did not go through, and nothing more of its flow will


@dataclass(frozen=True, slots=True)
class Exec:
    """A new program is about to run its first instruction (``sched_process_exec``)."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int
    start_ticks: int
    ppid: int
    parent_start_ticks: int
    uid: int
    gid: int
    parent_name: bytes  # basename of the parent's executable
    executable: bytes  # resolved path of the file that runs, as the kernel walks it
    filename: bytes  # the path that was asked for (a script, a symbolic link, /proc/self/fd/N)
    argv: bytes  # NUL-terminated arguments, at most the window of 4,096 bytes
    argv_total: int  # bytes of arguments that the process really has
    inode: int
    device: int  # as in os.stat().st_dev
    nlink: int
    memfd: bool
    predicates: int  # bit set of compiled predicates that held, in the kernel's judgement
    generation: int  # of the policy tables that judged; 0 = none loaded
    clause: int  # index of the first enforcing clause that matched, -1 = none
    done: Done
    verdict_ns: int  # from entry of the program to the verdict

    @property
    def args(self) -> tuple[str, ...]:
        raw = self.argv[:-1] if self.argv.endswith(b"\0") else self.argv
        return tuple(text(a) for a in raw.split(b"\0")) if self.argv else ()

    @property
    def truncated(self) -> bool:
        return self.argv_total > len(self.argv)

    @property
    def name(self) -> str:
        return text(self.executable.rpartition(b"/")[2])


@dataclass(frozen=True, slots=True)
class Fork:
    """A new process (not a new thread)."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int
    start_ticks: int
    ppid: int
    parent_start_ticks: int


@dataclass(frozen=True, slots=True)
class Exit:
    """The last thread of a process is gone."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int
    start_ticks: int
    exit_code: int  # as wait(2) reports it


@dataclass(frozen=True, slots=True)
class Connect:
    """connect(2), sendmsg(2) with an address on an unconnected socket, or a packet of a ping or raw socket (``operation``)."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int
    start_ticks: int
    uid: int
    comm: bytes
    transport: Transport
    destination_ip: str
    destination_port: int
    operation: str  # "connect", "sendmsg" or "packet"
    denied: bool


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A connection that was tried did not come about: refused, unreachable, timed out, or given up. Of UDP, which has no
    connections, the engine says so itself: nothing has come back from where a datagram went (``detect.datagrams``)."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int  # the process that made the socket; 0 = not known
    start_ticks: int
    uid: int
    comm: bytes
    transport: Transport
    destination_ip: str
    destination_port: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A datagram has come from an internal address to which an unconnected UDP socket had sent one (``Connect``); told once
    for each time that the sending was. Of connected sockets ``Flow`` says it."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int  # the process that made the socket; 0 = not known
    start_ticks: int
    uid: int
    comm: bytes
    transport: Transport
    destination_ip: str  # that was sent to
    destination_port: int


@dataclass(frozen=True, slots=True)
class Listen:
    """bind(2) or listen(2), as ``operation`` tells."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int
    start_ticks: int
    uid: int
    comm: bytes
    transport: Transport
    source_ip: str
    source_port: int
    operation: str  # "bind" or "listen"
    denied: bool


@dataclass(frozen=True, slots=True)
class Wire:
    """The first bytes of a flow have met what a rule looks for: a TCP connection of the workload, made by it or to it, or a
    datagram of UDP."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int  # the process that made the connection, or the socket that listened for it; 0 = not known
    start_ticks: int
    uid: int
    comm: bytes
    transport: Transport
    remote_ip: str
    remote_port: int
    direction: str  # of the packet that brought it: "sent" or "received"
    sent: bytes  # what the workload sent first, at most 128 bytes
    received: bytes  # what it received first
    predicates: int  # bit set, of the flow's first 1,024 bytes each way and, if maker_known, of the process's program
    maker_known: bool  # the same tables have judged the process's program
    generation: int  # of the policy tables that judged; 0 = none
    clause: int  # index of the first enforcing clause of the wire that matched, -1 = none
    done: Done
    verdict_ns: int  # from the packet to the verdict
    question: bytes = b""  # the name that it asks for (DNS), as far as it is known
    server_name: bytes = b""  # the name that it calls the server by (TLS)
    outbound: bool = True  # the workload made the connection; False = it accepted it


@dataclass(frozen=True, slots=True)
class File:
    """A file of a place that persistence or containment rests on has changed (``kernel.places``)."""

    time_ns: int  # when it was noticed
    workload: int
    pid: int
    start_ticks: int  # 0 = the process has ended, and was not known
    path: bytes  # as the process sees it
    place: str  # what kind of place it is: "cron", "authorized_keys", …
    action: str  # "create", "write", "rename" (to this path) or "delete"
    content: bytes  # the beginning of what it holds; kept out of findings, the ledger and streams


@dataclass(frozen=True, slots=True)
class Burst:
    """Payload that went one way over a connection, without a pause of 10 ms and without any the other way between."""

    time_ns: int  # when it began
    span_ns: int  # to its last packet; at most 100 ms
    bytes: int
    packets: int
    sent: bool  # by the workload


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection that the workload has made (TCP or UDP), and what went over it since it was last told of.

    Told about once a second, while something happens to it. Connections that the workload has accepted are not told of.
    """

    time_ns: int  # when it was read
    workload: int
    pid: int  # the process that connected
    start_ticks: int
    uid: int
    comm: bytes
    cookie: int  # the socket's; no other has it until the host reboots
    transport: Transport
    local_ip: str
    local_port: int  # 0 = nothing was sent yet
    remote_ip: str
    remote_port: int
    began_ns: int  # when it was connected
    last_ns: int  # when payload last went over it
    sent_bytes: int  # payload so far, each byte once
    received_bytes: int
    closed: bool  # both sides have said so, or one has reset it
    missed: int  # bursts since last time that nobody saw: more came than are kept
    bursts: tuple[Burst, ...]  # since last time, in the order in which they began
    holder_pid: int = 0  # the last process that executed a program with it as a standard file; 0 = none did
    holder_start_ticks: int = 0
    stdio: tuple[str, ...] = ()  # which: "stdin", "stdout", "stderr"


@dataclass(frozen=True, slots=True)
class Signal:
    """A process of a workload has signalled one outside it, or stopped it to trace it (PTRACE_ATTACH)."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int
    start_ticks: int
    number: int
    target_pid: int
    target_start_ticks: int
    target_name: bytes  # of its main thread
    operation: str  # "kill" or "ptrace"
    to_daemon: bool  # to the daemon that read the rings then


@dataclass(frozen=True, slots=True)
class Denied:
    """An LSM program has refused a process of a workload something. Of the same by the same process, one a second is told."""

    time_ns: int
    workload: int
    cgroup_id: int
    pid: int
    start_ticks: int
    uid: int
    comm: bytes
    operation: str  # "exec", "socket", "connect", "send", "receive", "ptrace", "kill", "bpf", "pin", "cgroup_file", "kernel_code"
    number: int  # the socket's family, the signal, bpf()'s command, the mode of the access
    target_pid: int  # the process that was meant; 0 = none was
    target_start_ticks: int
    target_name: bytes  # its name; of an exec the path of the executable (the end of it); of a file its name
    severed: bool  # it was so because the workload is severed
    to_daemon: bool  # the target is the daemon that read the rings then
    generation: int = 0  # of an exec: of the policy tables that the clause is in
    clause: int = -1  # of an exec: the enforcing clause that denied it


@dataclass(frozen=True, slots=True)
class CgroupMove:
    """A process was moved between cgroups; ``workload`` is the one that it left, or entered when it left none."""

    time_ns: int
    workload: int
    pid: int
    start_ticks: int
    from_cgroup: int
    to_cgroup: int
    to_workload: int  # 0 = none: it left what is watched
    to_path: str
    moved_by: int = (
        0  # the process that did it, if it is of no workload: an operator's; 0 = itself, or one of a workload
    )


@dataclass(frozen=True, slots=True)
class CgroupCreated:
    time_ns: int
    cgroup_id: int
    path: str  # below the cgroup v2 root, "/a/b"


@dataclass(frozen=True, slots=True)
class CgroupRemoved:
    time_ns: int
    cgroup_id: int
    path: str


@dataclass(frozen=True, slots=True)
class Cpu:
    """How one process used the CPU in one window, by sampling its instruction pointer."""

    time_ns: int
    workload: int
    pid: int
    start_ticks: int
    window_ns: int
    cores: float  # CPUs kept busy, mean over the window
    kernel_share: float  # of the samples, 0..1
    hot: tuple[tuple[int, int], ...]  # (user-space address, samples), hottest first
    code: tuple[bytes, ...] = ()  # what lay at each of ``hot`` when it was sampled, up to 64 bytes; b"" = not known
    program: int = 0  # inode number of the executable, 0 = not known
    read_bytes: int = 0  # what the process has read so far, by whatever call, and written
    written_bytes: int = 0
    machine: str = ""  # whose code it is, as platform.machine() names it


@dataclass(frozen=True, slots=True)
class Unattended:
    """The kernel's programs have severed a workload by themselves: no daemon had been there for longer than its policies
    allow. Told by the daemon that is back."""

    time_ns: int
    workload: int
    grace_ms: int  # for how long its policies allow the daemon to be away
    keep: bool  # its policies want it to stay cut off until an operator releases it


@dataclass(frozen=True, slots=True)
class Lost:
    """Events that never reached user space, counted since the last report."""

    time_ns: int
    workload: int  # 0 = not to be told
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes. The engine has no clock of its own."""

    time_ns: int


@dataclass(frozen=True, slots=True)
class WorkloadAdded:
    """A cgroup is watched from now on. ``policies`` are indices into the loaded policies."""

    time_ns: int
    workload: int
    name: str
    cgroup: str
    policies: tuple[int, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class WorkloadRemoved:
    time_ns: int
    workload: int


@dataclass(frozen=True, slots=True)
class Released:
    """An operator has released the workload: its open incident is closed, detectors start afresh."""

    time_ns: int
    workload: int


Event = (
    Exec
    | Fork
    | Exit
    | Connect
    | Unanswered
    | Answered
    | Listen
    | Wire
    | File
    | Signal
    | Denied
    | Flow
    | CgroupMove
    | CgroupCreated
    | CgroupRemoved
    | Cpu
    | Code
    | Lost
    | Unattended
    | Tick
    | WorkloadAdded
    | WorkloadRemoved
    | Released
)
