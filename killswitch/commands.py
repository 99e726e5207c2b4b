"""What is to be done, and what came of it: the facts that come out of the engine and out of containment."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from killswitch.events import Event


class Response(enum.StrEnum):
    ALERT = "alert"
    DENY = "deny"
    KILL_PROCESS = "kill_process"
    SEVER = "sever"
    FREEZE = "freeze"
    CAPTURE = "capture"
    TERMINATE = "terminate"


class Mode(enum.StrEnum):
    MONITOR = "monitor"
    ENFORCE = "enforce"


class Level(enum.StrEnum):
    """Sigma's levels, weakest first."""

    INFORMATIONAL = "informational"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Act(enum.StrEnum):
    """What a rule is evidence of. Findings of a workload add up by act."""

    MINING = "mining"
    TUNNEL = "tunnel"
    PROBING = "probing"
    PERSISTENCE = "persistence"
    DISGUISE = "disguise"
    TAMPERING = "tampering"


class Evidence(enum.StrEnum):
    """Which kind of evidence a rule rests on: to hide one kind is to leave the others."""

    NAME = "name"  # what the program is: its name, path, inode, hash, content
    ARGUMENTS = "arguments"  # its arguments, and the config files that they name
    WIRE = "wire"  # bytes of flows, names asked for in DNS and TLS
    BEHAVIOUR = "behaviour"  # load, relaying, fan-out, files written


class Guard(enum.IntFlag):
    """What LSM programs refuse a workload also while it is free, where the kernel has them; ``GUARD_...`` of bpf/values.h.
    ``name.lower()`` is the word that policies use."""

    BPF = 1
    CGROUP_FILES = 2
    DAEMON = 4
    KERNEL_CODE = 8
    PTRACE = 16
    SIGNALS = 32
    XDP_SOCKETS = 64


NO_GUARD = Guard(0)


@dataclass(frozen=True, slots=True)
class Containment:
    """How a workload is, or is to be, contained. ``str()`` gives DESIGN's word for it."""

    severed: bool = False
    frozen: bool = False
    terminated: bool = False

    def __str__(self) -> str:
        if self.terminated:
            return "terminated"
        return "+".join(w for w, on in (("severed", self.severed), ("frozen", self.frozen)) if on) or "free"

    def __or__(self, other: Containment) -> Containment:
        return Containment(
            self.severed or other.severed, self.frozen or other.frozen, self.terminated or other.terminated
        )

    @classmethod
    def parse(cls, word: str) -> Containment:
        """Inverse of ``str()``. Raises ValueError for any other word."""
        parts = set(word.split("+")) if word != "free" else set()
        if not parts <= {"severed", "frozen", "terminated"}:
            raise ValueError(f"no containment is called {word!r}: free, severed, frozen, severed+frozen, terminated")
        return cls("severed" in parts, "frozen" in parts, "terminated" in parts)


FREE = Containment()


@dataclass(frozen=True, slots=True)
class Finding:
    """One match of one rule."""

    time_ns: int
    workload: int
    policy: str
    rule: str
    title: str
    level: Level
    mode: Mode
    responses: tuple[Response, ...]  # what the rule asks for
    done_in_kernel: tuple[Response, ...]  # what the data plane had done before user space heard of it
    pid: int
    start_ticks: int
    summary: str  # one line for people: who did what
    event: Event
    verdict_ns: int = (
        0  # from the event to the verdict; the engine has no clock, and leaves what it judged to the daemon
    )
    act: Act | None = None  # what it is evidence of, as the rule says
    evidence: Evidence | None = None  # and of which kind


@dataclass(frozen=True, slots=True)
class RecordFinding:
    """Keep the finding and show it to who follows the events. Every finding comes out as one of these, first."""

    incident: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Contain:
    """Bring the workload to at least this containment, in the order sever, freeze, destroy sockets, capture, terminate."""

    workload: int
    incident: str
    desired: Containment
    capture: bool
    reason: str
    hot: tuple[tuple[int, int, int], ...] = ()  # (pid, address, samples) to name in the evidence of a hashing finding


@dataclass(frozen=True, slots=True)
class KillProcess:
    workload: int
    incident: str
    pid: int
    start_ticks: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReadCode:
    """Read the machine code at these addresses and hand it back as ``machinecode.Code``."""

    workload: int
    pid: int
    start_ticks: int
    hot: tuple[tuple[int, int], ...]  # (address, samples)
    code: tuple[bytes, ...] = ()  # what was seen at each of them when it was sampled; b"" = to be read now
    data: tuple[int, ...] = ()  # addresses of data that this code uses


@dataclass(frozen=True, slots=True)
class ReadPipes:
    """Read which pipes the workload's processes have as standard files and hand it back as ``facts.Pipes``. Nothing is
    handed back where this process has none to write to."""

    workload: int
    pid: int
    start_ticks: int
    cookie: int  # of the connection that is asked about


Command = RecordFinding | Contain | KillProcess | ReadCode | ReadPipes


class Step(enum.StrEnum):
    SEVER = "sever"
    FREEZE = "freeze"
    DESTROY_SOCKETS = "destroy_sockets"
    CAPTURE = "capture"
    TERMINATE = "terminate"
    KILL_PROCESS = "kill_process"
    THAW = "thaw"
    RECONNECT = "reconnect"
    # Of the self-test:
    HOLD = "hold"  # no packet before it is judged
    FLOW = "flow"  # its traffic goes
    DETECT = "detect"  # its rule fires
    SILENCE = "silence"  # severed: none of its packets comes or goes
    STILL = "still"  # frozen: its CPU time stands
    CLEAN_UP = "clean_up"  # nothing of it is left


class Outcome(enum.StrEnum):
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"  # it cannot be done here, or must not (a protected process)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one step did, when, and the proof that was observed."""

    step: Step
    outcome: Outcome
    workload: int
    started_ns: int
    finished_ns: int
    proof: Mapping[str, str | int | float] = field(default_factory=dict)
    error: str = ""


# --- what the policy compiler hands to the data plane ---------------------------------------------------------------

PREDICATES = 256  # bits in a predicate set
MAX_STATES = 32768  # rows of the automaton table, a generation
MAX_CLAUSES = 256
MAX_GRAMMARS = 8
MAX_INODES = 1024
WIRE_WINDOW = 8192  # bytes of a flow, each way, that are judged
ACCEPTS = 0x8000  # set in a next-state entry when the state it names accepts something

# Predicate bits that the data plane sets by itself; the compiler gives out bits from FIRST_FREE_BIT on.
BIT_MEMFD = 0  # the executable is a memfd
BIT_UNLINKED = 1  # the executable has no name any more (nlink 0)
BIT_TRUNCATED = 2  # the arguments are longer than the window
# Of a flow:
BIT_OUTBOUND = 4  # the workload made the connection, and did not accept it
BIT_UDP = 5  # a datagram of UDP
BIT_DNS = 6  # it asks for a name
BIT_TLS = 7  # it is TLS, and names the server
FIRST_FREE_BIT = 8


@dataclass(frozen=True, slots=True)
class Clause:
    """Matches when ``predicates & mask == value``. A rule's condition is the OR of its clauses."""

    mask: int
    value: int
    policy: int  # 0..63: applies to workloads whose policy set has this bit
    rule: int  # index into the compiled rules
    kill: bool  # SIGKILL before the first instruction
    sever: bool  # cut the workload off at once
    deny: bool = False  # of the wire: the packet does not go through, and nothing more of its flow; of an exec: EPERM


@dataclass(frozen=True, slots=True)
class Grammar:
    """A walk over the arguments that is only made when ``gate`` holds (ssh's options are only ssh's)."""

    gate: int  # predicate bit
    start: int  # state


@dataclass(frozen=True, slots=True)
class KernelTables:
    """One policy generation, as the data plane wants it.

    ``rows`` holds ``len(rows) / 512`` states of 256 little-endian u16 next states; state 0 is dead (its row is all
    zero), and is also the start of a field that no rule mentions. A next state with ``ACCEPTS`` set accepts: its bits are
    ``accepts[state]``. Every walked field ends with a NUL byte, which is fed too: that is how "equals" and "ends with"
    are told. Bits are collected along the walk (Aho-Corasick), not only at its end.
    """

    rows: bytes
    accepts: Mapping[int, int]  # state (without ACCEPTS) -> predicate bits
    start_name: int  # basename of the resolved executable, and basename of the file asked for
    start_path: int  # the resolved executable, and the file asked for
    start_parent: int  # basename of the parent's executable
    start_args: int  # argv, NUL after each argument
    grammars: tuple[Grammar, ...]
    clauses: tuple[Clause, ...]
    inodes: tuple[tuple[int, int, int], ...]  # (st_dev, st_ino, predicate bits)
    # The first bytes of a flow: up to WIRE_WINDOW of each direction or to their first NUL, as they come; no NUL is fed at
    # their end, which nobody knows. Start 0 = no rule looks that way.
    start_sent: int = 0
    start_received: int = 0
    wire_bits: int = 0  # the bits that the flow decides; a wire clause's others are those of the maker's program
    wire_clauses: tuple[Clause, ...] = ()
    # A name that is asked for (DNS) or that a server is called by (TLS), with a NUL at its end.
    start_host: int = 0
    # The far side's address, 4 or 16 bytes (IPv4 in IPv6 as IPv4), and its port, 2 bytes; all in network order.
    start_address4: int = 0
    start_address6: int = 0
    start_port: int = 0
    late_bits: int = 0  # of an exec: those that its arguments decide, which are not known before it
    told_bits: int = 0  # those of wire_bits whose first appearance in a flow is an event
    hold_clauses: tuple[
        Clause, ...
    ] = ()  # one of which holds while a rule is open that only the daemon judges to its end
