"""The data plane's ABI in Python: the twin of ``bpf/events.h`` and ``bpf/values.h``. A test compares them through the BTF.

``LAYOUTS`` names each C struct with its members in order and their formats; the ``struct.Struct`` objects that decode
are made from the same lines, so what the test proves is what runs.
"""

from __future__ import annotations

import enum
import os
import struct
from dataclasses import dataclass

PREDICATE_WORDS = 4
MAX_WORKLOADS = 1024  # slots; slot 0 means "none"
MAX_HOST_RULES = 64
MAX_WORKLOAD_LEVEL = 15  # how deep below the cgroup root a workload may lie
NS_PER_TICK = 10_000_000
ARGV_WINDOW = 4096
WIRE_WINDOW = 8192  # bytes of a flow, each way, that are judged
CODE_BYTES = 64  # of code that are kept of each sampled address
WIRE_KEPT = 128  # of which so many are kept to be shown
WIRE_NAME = 256  # and so many of a name


class Kind(enum.IntEnum):
    EXEC = 1
    FORK = 2
    EXIT = 3
    CONNECT = 4
    LISTEN = 5
    CGROUP_MOVE = 6
    CGROUP_CREATED = 7
    CGROUP_REMOVED = 8
    WIRE = 9
    UNANSWERED = 20
    SIGNAL = 21
    ANSWERED = 22
    DENIED = 30


class Operation(enum.IntEnum):
    CONNECT = 1
    SENDMSG = 2
    BIND = 3
    LISTEN = 4
    PACKET = 5


class SignalOperation(enum.IntEnum):
    KILL = 1
    PTRACE = 2


class Denied(enum.IntEnum):
    """What an LSM program has refused; ``name.lower()`` is the word for people and policies."""

    EXEC = 0
    SOCKET = 1
    CONNECT = 2
    SEND = 3
    RECEIVE = 4
    PTRACE = 5
    KILL = 6
    BPF = 7
    PIN = 8
    CGROUP_FILE = 9
    KERNEL_CODE = 10
    OPERATIONS = 11


class LossReason(enum.IntEnum):
    """Indices into the counters of ``struct losses``; ``name.lower()`` is the word for people."""

    EXEC_RING_FULL = 0
    FLOW_RING_FULL = 1
    SENDMSG_SUPPRESSED = 2
    ARGV_UNREADABLE = 3
    PATH_CUT = 4
    KILL_FAILED = 5
    TRACKING_FULL = 6
    SAMPLES = 7
    WIRE_UNJUDGED = 8
    EXECS_FLOODED = 9
    FLOWS_FLOODED = 10
    HOLD = 11


class HoldMode(enum.IntEnum):
    OFF = 0
    MATCHED = 1
    ALL = 2


class Unjudged(enum.IntEnum):
    LATE = 1
    CONDEMNED = 2
    LOST = 3


class Direction(enum.IntEnum):
    SENT = 0
    RECEIVED = 1
    DIRECTIONS = 2


class NameKind(enum.IntEnum):
    NONE = 0
    QUESTION = 1
    SERVER = 2
    RAW_QUESTION = 3
    KINDS = 4


ENUMS: dict[str, tuple[str, type[enum.IntEnum]]] = {
    "event_kind": ("EVENT_", Kind),
    "socket_operation": ("OPERATION_", Operation),
    "loss_reason": ("LOST_", LossReason),
    "signal_operation": ("SIGNAL_", SignalOperation),
    "hold_mode": ("HOLD_", HoldMode),
    "unjudged_state": ("UNJUDGED_", Unjudged),
    "denied_operation": ("DENIED_", Denied),
    "wire_direction": ("WIRE_", Direction),
    "wire_name_kind": ("NAME_", NameKind),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """A C struct: its members in order, each with its ``struct`` format; ``x`` formats are padding."""

    members: tuple[tuple[str, str], ...]

    @property
    def codec(self) -> struct.Struct:
        return struct.Struct("<" + "".join(form for _, form in self.members))

    @property
    def size(self) -> int:
        return self.codec.size

    def offset(self, member: str) -> int:
        before = "<"
        for name, form in self.members:
            if name == member:
                return struct.calcsize(before)
            before += form
        raise KeyError(member)

    def then(self, *members: tuple[str, str]) -> Layout:
        return Layout((*self.members, *members))


HEADER = Layout(
    (("time_ns", "Q"), ("workload", "Q"), ("cgroup_id", "Q"), ("start_ticks", "Q"), ("pid", "I"), ("kind", "I"))
)
EXEC = HEADER.then(
    ("parent_start_ticks", "Q"),
    ("inode", "Q"),
    ("predicates", "32s"),
    ("ppid", "I"),
    ("uid", "I"),
    ("gid", "I"),
    ("device", "I"),
    ("nlink", "I"),
    ("clause", "i"),
    ("generation", "I"),
    ("verdict_ns", "I"),
    ("argv_total", "I"),
    ("parent_len", "H"),
    ("executable_len", "H"),
    ("filename_len", "H"),
    ("argv_len", "H"),
    ("memfd", "B"),
    ("done", "B"),
    ("padding", "2x"),
)
FORK = HEADER.then(("parent_start_ticks", "Q"), ("ppid", "I"), ("padding", "4x"))
EXIT = HEADER.then(("exit_code", "i"), ("padding", "4x"))
SOCKET = HEADER.then(
    ("address", "16s"),
    ("comm", "16s"),
    ("uid", "I"),
    ("port", "H"),
    ("family", "B"),
    ("protocol", "B"),
    ("operation", "B"),
    ("denied", "B"),
    ("padding", "6x"),
)
WIRE = HEADER.then(
    ("predicates", "32s"),
    ("address", "16s"),
    ("comm", "16s"),
    ("uid", "I"),
    ("clause", "i"),
    ("generation", "I"),
    ("verdict_ns", "I"),
    ("port", "H"),
    ("family", "B"),
    ("protocol", "B"),
    ("direction", "B"),
    ("done", "B"),
    ("maker_known", "B"),
    ("sent_len", "B"),
    ("received_len", "B"),
    ("outbound", "B"),
    ("name_kind", "B"),
    ("name_len", "B"),
    ("padding", "4x"),
    ("sent", f"{WIRE_KEPT}s"),
    ("received", f"{WIRE_KEPT}s"),
    ("name", f"{WIRE_NAME}s"),
)
CGROUP = HEADER.then(("to_cgroup", "Q"), ("to_workload", "Q"), ("path_len", "I"), ("moved_by", "I"))

WORKLOAD = Layout(
    (
        *(("cgroup_id", "Q"), ("policies", "Q"), ("severed", "B"), ("frozen", "B"), ("terminated", "B")),
        *(("unattended", "B"), ("grace_ms", "I")),
        *(("hold", "B"), ("padding", "3x"), ("lapse_ms", "I"), ("unheld", "I"), ("unheld_judged", "I")),
        ("policies_other", "Q"),
    )
)
WORKLOAD_HEAD = Layout(WORKLOAD.members[:7])  # what every release has, and in these places
SIGNAL = HEADER.then(
    ("target_start_ticks", "Q"),
    ("target_pid", "I"),
    ("number", "I"),
    ("target_comm", "16s"),
    ("operation", "B"),
    ("to_daemon", "B"),
    ("padding", "6x"),
)
RESTRAINT = Layout((("shielded", "B"), ("charged", "B"), ("padding", "6x")))
KILL_BUDGET = Layout((("spent", "Q"), ("until", "Q")))
FLOOD = Layout(tuple((name, "Q") for name in ("exec_used", "exec_since", "flow_used", "flow_since")))
CONTROL = Layout(
    (
        *(("watched", "I"), ("active", "I"), ("heartbeat_ns", "Q"), ("judged", "Q")),
        *(
            ("late", "I"),
            ("lost", "I"),
            ("lost_judged", "I"),
            ("patience_ns", "I"),
            ("syn_retry", "I"),
            ("padding", "4x"),
        ),
    )
)
HOLD_IDS = 4
HOLD = Layout(
    (("start_ticks", "Q"), ("position", "Q"), ("unjudged", f"{HOLD_IDS}Q"), ("crowded", "B"), ("padding", "7x"))
)
DENIED_TARGET = 256
DENIED = HEADER.then(
    ("target_start_ticks", "Q"),
    ("target_pid", "I"),
    ("number", "I"),
    ("uid", "I"),
    ("clause", "i"),
    ("generation", "I"),
    ("target_len", "H"),
    ("operation", "B"),
    ("severed", "B"),
    ("to_daemon", "B"),
    ("padding", "7x"),
    ("comm", "16s"),
    ("target", f"{DENIED_TARGET}s"),
)
GUARD = Layout((("guards", "I"), ("padding", "4x"), ("denied", f"{Denied.OPERATIONS}Q")))
CGROUP_SLOT = Layout((("cgroup_id", "Q"), ("slot", "I"), ("padding", "4x")))
PROCESS_PLACE = Layout((("cgroup_id", "Q"), ("workload", "Q"), ("slot", "I"), ("left", "I"), ("start_ticks", "Q")))
PROCESS_BITS = Layout((("bits", "32s"), ("start_ticks", "Q"), ("generation", "I"), ("padding", "4x")))
FLOW = Layout(
    tuple(
        (name, "Q")
        for name in ("tx_packets", "tx_bytes", "tx_dropped", "rx_packets", "rx_bytes", "rx_dropped", "tx_held")
    )
)
HOST = Layout((("cgroup_id", "Q"), ("since_ns", "Q"), ("rules", "I"), ("cut", "B"), ("padding", "3x")))
HOST_RULE = Layout(
    (
        ("address", "16s"),
        ("mask", "16s"),
        ("device", "I"),
        ("local_low", "H"),
        ("local_high", "H"),
        ("remote_low", "H"),
        ("remote_high", "H"),
        ("protocol", "B"),
        ("begun_by", "B"),
        ("padding", "2x"),
    )
)
TRAFFIC_BURSTS = 16  # kept of each direction of a connection
TRAFFIC_BURST = Layout(
    (("began_ns", "Q"), ("bytes", "I"), ("span_us", "I"), ("packets", "I"), ("padding", "4x"))
)  # fmt: skip
TRAFFIC_WAY = Layout(
    (
        ("bytes", "Q"),
        ("last_ns", "Q"),
        ("next_seq", "I"),
        ("bursts", "I"),
        ("finished", "I"),
        ("padding", "4x"),
        ("burst", f"{TRAFFIC_BURSTS * TRAFFIC_BURST.size}s"),
    )
)
TRAFFIC = Layout(
    (
        ("workload", "Q"),
        ("start_ticks", "Q"),
        ("began_ns", "Q"),
        ("last_ns", "Q"),
        ("holder_start", "Q"),
        ("local", "16s"),
        ("remote", "16s"),
        ("comm", "16s"),
        ("pid", "I"),
        ("uid", "I"),
        ("holder_pid", "I"),
        ("local_port", "H"),
        ("remote_port", "H"),
        ("family", "B"),
        ("protocol", "B"),
        ("reset", "B"),
        ("stdio", "B"),
        ("padding", "4x"),
        ("way", f"{Direction.DIRECTIONS * TRAFFIC_WAY.size}s"),
    )
)
TRAFFIC_ACTIVITY = Layout((("last_ns", "Q"),))
LOSSES = Layout((("count", f"{len(LossReason)}Q"),))
DFA_ROW = Layout((("next", "512s"),))
PREDICATE_SET = Layout((("word", "32s"),))
CLAUSE = Layout(
    (
        ("mask", "32s"),
        ("value", "32s"),
        ("policy", "I"),
        ("kill", "B"),
        ("sever", "B"),
        ("deny", "B"),
        ("padding", "1x"),
    )
)
GRAMMAR = Layout((("gate", "I"), ("start", "I")))
POLICY_META = Layout(
    (
        ("generation", "I"),
        ("n_clauses", "I"),
        ("n_grammars", "I"),
        ("n_inodes", "I"),
        ("start_name", "I"),
        ("start_path", "I"),
        ("start_parent", "I"),
        ("start_args", "I"),
        ("n_wire_clauses", "I"),
        ("start_sent", "I"),
        ("start_received", "I"),
        ("start_host", "I"),
        ("start_address4", "I"),
        ("start_address6", "I"),
        ("start_port", "I"),
        ("n_hold_clauses", "I"),
        ("n_denying", "I"),
        ("padding", "4x"),
        ("wire_bits", "32s"),
        ("told_bits", "32s"),
        ("late_bits", "32s"),
        ("grammars", "16I"),
    )
)
INODE_KEY = Layout((("inode", "Q"), ("device", "I"), ("half", "I")))
CPU_KEY = Layout((("start_ticks", "Q"), ("pid", "I"), ("padding", "4x")))
CPU_VALUE = Layout(
    (
        ("workload", "Q"),
        ("samples", "Q"),
        ("kernel_samples", "Q"),
        ("program", "Q"),
        ("read_bytes", "Q"),
        ("written_bytes", "Q"),
    )
)
HOT_KEY = Layout((("start_ticks", "Q"), ("address", "Q"), ("pid", "I"), ("padding", "4x")))
HOT_VALUE = Layout((("samples", "Q"), ("code_len", "B"), ("padding", "7x"), ("code", f"{CODE_BYTES}s")))
HANDED = Layout((("cgroup_id", "Q"), ("slot", "I"), ("padding", "4x")))
HELD_SOCKET = Layout((("cgroup_id", "Q"), ("made_in", "Q"), ("inode", "Q"), ("pid", "I"), ("descriptor", "I")))
THREAD_NAMESPACE = Layout((("cgroup_id", "Q"), ("tid", "I"), ("net", "I"), ("makes_frames", "I"), ("padding", "4x")))

STRUCTS: dict[str, Layout] = {
    "exec_event": EXEC,
    "fork_event": FORK,
    "exit_event": EXIT,
    "socket_event": SOCKET,
    "cgroup_event": CGROUP,
    "wire_event": WIRE,
    "signal_event": SIGNAL,
    "denied_event": DENIED,
    "guard": GUARD,
    "event_header": HEADER,
    "workload": WORKLOAD,
    "restraint": RESTRAINT,
    "kill_budget": KILL_BUDGET,
    "flood": FLOOD,
    "control": CONTROL,
    "hold": HOLD,
    "cgroup_slot": CGROUP_SLOT,
    "process_place": PROCESS_PLACE,
    "process_bits": PROCESS_BITS,
    "flow": FLOW,
    "traffic_burst": TRAFFIC_BURST,
    "traffic_way": TRAFFIC_WAY,
    "traffic": TRAFFIC,
    "traffic_activity": TRAFFIC_ACTIVITY,
    "losses": LOSSES,
    "host": HOST,
    "host_rule": HOST_RULE,
    "dfa_row": DFA_ROW,
    "predicate_set": PREDICATE_SET,
    "clause": CLAUSE,
    "grammar": GRAMMAR,
    "policy_meta": POLICY_META,
    "inode_key": INODE_KEY,
    "cpu_key": CPU_KEY,
    "cpu_value": CPU_VALUE,
    "hot_key": HOT_KEY,
    "hot_value": HOT_VALUE,
    "handed": HANDED,
    "held_socket": HELD_SOCKET,
    "thread_namespace": THREAD_NAMESPACE,
}
"""C struct -> layout. A struct whose first member is another struct (``header``) has that one's members spelt out."""


def kernel_device(st_dev: int) -> int:
    """``st_dev`` as the kernel keeps it in a super block: major << 20 | minor."""
    return os.major(st_dev) << 20 | os.minor(st_dev)


def stat_device(kernel: int) -> int:
    """The kernel's device number as ``os.stat().st_dev`` shows it."""
    return os.makedev(kernel >> 20, kernel & 0xFFFFF)
