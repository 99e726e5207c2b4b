"""What the control plane asks of the daemon, in plain dataclasses. ``daemon.py`` implements it, ``server.py`` serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from killswitch.commands import FREE, Containment, Finding, Receipt
from killswitch.errors import Problem
from killswitch.events import Event


@dataclass(frozen=True, slots=True)
class WorkloadInfo:
    id: int  # cgroup id
    name: str
    cgroup: str  # path below the cgroup v2 root
    policies: tuple[str, ...]
    desired: Containment
    observed: Containment
    processes: int
    since_unix: float
    incident: str  # open incident, "" = none
    tx_packets: int
    rx_packets: int
    dropped_packets: int
    lost_events: int
    path: str = ""  # absolute path of the cgroup's directory: cgroup v2 mount + ``cgroup``
    held_packets: int = 0  # of programs that were not judged yet
    cpu_ns: int = -1  # CPU time that its cgroup has used, -1 = not known
    events: int = 0  # of it, since the daemon started
    hashing: float = -1.0  # how much like hashing its CPU time of the last half minute was, 0..1; -1 = not known


@dataclass(frozen=True, slots=True)
class IncidentInfo:
    id: str
    workload: int
    workload_name: str
    cgroup: str
    opened_unix: float
    closed_unix: float  # 0 = open
    reason: str
    level: str
    containment: Containment
    findings: tuple[Finding, ...]
    receipts: tuple[Receipt, ...]
    evidence: str  # "" = none (yet)
    after: str = ""  # the one of the same workload that was released before it, "" = none


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator told the daemon to do. ``request_id`` makes it idempotent: the same id gives the same answer."""

    request_id: str
    target: str  # workload name or id, cgroup path, pid:N, host
    reason: str
    role: str  # "admin" or "view": which socket it came in by
    wait_for_evidence: bool = False
    force: bool = False  # of the whole host: cut it off even though no way in can be kept


@dataclass(frozen=True, slots=True)
class OrderResult:
    order_id: str
    workload: WorkloadInfo
    incident: str
    receipts: tuple[Receipt, ...]  # of this order; empty is not success: see ``complete``
    complete: bool  # every step was done and its proof observed


@dataclass(frozen=True, slots=True)
class Health:
    part: str  # ring, ledger, control, policy, dataplane, proof
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Proof:
    """When the switch last proved on a canary that it can halt, and what came of it."""

    at_unix: float = 0.0  # of the last proof, 0 = never
    ok: bool = False  # all of it was seen
    fresh: bool = True  # not older than it may be; with no timer nothing is too old
    detail: str = ""  # what was not seen
    good_unix: float = 0.0  # of the last proof that passed, 0 = never
    due_unix: float = 0.0  # of the next one, 0 = only when asked
    every_s: float = 0.0  # seconds between two, 0 = only when asked

    @property
    def stands(self) -> bool:
        """The switch has proved that it can halt, and lately enough."""
        return bool(self.at_unix) and self.ok and self.fresh


@dataclass(frozen=True, slots=True)
class HostInfo:
    """The whole host, as a target of orders."""

    desired: Containment = FREE
    observed: Containment = FREE
    incident: str = ""
    allowed: str = ""  # what goes through while it is cut off
    detail: str = ""  # what is not as it must be


@dataclass(frozen=True, slots=True)
class Holding:
    """From exec to verdict, of the last programs: how long they put no packet on the wire. Milliseconds, 0 = there were none."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    late_p50_ms: float = 0.0  # of those for which files had to be read
    late_p99_ms: float = 0.0
    late: int = 0  # programs for which that goes on
    held_packets: int = 0  # of all workloads that are watched


@dataclass(frozen=True, slots=True)
class Status:
    version: str
    pid: int
    started_unix: float
    armed_ms: float  # from process start to armed
    adopted: bool  # found the data plane pinned, and took it over
    policies: tuple[str, ...]
    workloads: int
    contained: int
    open_incidents: int
    events: int
    lost: Mapping[str, int]  # reason -> count
    resident_bytes: int
    health: tuple[Health, ...]
    proof: Proof = Proof()
    host: HostInfo = HostInfo()
    repeated: int = 0  # events that were not told one by one, because they only said the same again
    holding: Holding = Holding()
    lsm: str = ""  # how many of the optional LSM programs are in force, and why the others are not


@dataclass(frozen=True, slots=True)
class CapabilityInfo:
    name: str
    promise: str
    available: bool
    reason: str


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    name: str
    version: int
    mode: str
    file: str
    workloads: tuple[str, ...]
    rules: tuple[Mapping[str, str], ...]  # id, title, level, on, tier, why, response


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One element of the event stream; exactly one field is set. ``dropped``: events this slow reader has missed here."""

    event: Event | None = None
    finding: Finding | None = None
    incident: str = ""
    receipt: Receipt | None = None
    dropped: int = 0
    workload_name: str = ""


@dataclass(frozen=True, slots=True)
class EventFilter:
    workload: str = ""
    kinds: tuple[str, ...] = field(default=())  # exec, fork, connect, finding, receipt, …; empty = all


class Service(Protocol):
    """Raises TargetError (NOT_FOUND), Protected (FAILED_PRECONDITION), NotSupported (UNIMPLEMENTED), PolicyError
    (INVALID_ARGUMENT); whatever else comes out is INTERNAL and is logged."""

    async def kill(self, order: Order, *, terminate: bool) -> OrderResult: ...
    async def sever(self, order: Order) -> OrderResult: ...
    async def freeze(self, order: Order) -> OrderResult: ...
    async def thaw(self, order: Order) -> OrderResult: ...
    async def terminate(self, order: Order) -> OrderResult: ...
    async def release(self, order: Order, *, stage: str) -> OrderResult: ...  # thaw, network, all
    # ``create``: ``order.target`` is a cgroup path that is to be made (with its parents) when it does not exist.
    async def watch(self, order: Order, *, name: str, create: bool = False) -> WorkloadInfo: ...
    # ``remove``: remove the cgroup too, once it is unwatched; TargetError, and still watched, when it has processes.
    async def unwatch(self, order: Order, *, remove: bool = False) -> WorkloadInfo: ...
    async def status(self) -> Status: ...
    async def workloads(self) -> Sequence[WorkloadInfo]: ...
    async def incidents(self, *, open_only: bool, limit: int) -> Sequence[IncidentInfo]: ...
    async def incident(self, incident: str) -> IncidentInfo: ...
    def evidence(self, incident: str) -> AsyncIterator[tuple[str, bytes]]: ...  # (file name, chunk)
    def stream(self, wanted: EventFilter) -> AsyncIterator[StreamItem]: ...
    async def capabilities(self) -> Sequence[CapabilityInfo]: ...
    async def policies(self) -> Sequence[PolicyInfo]: ...
    async def check_policy(self, text: str, file: str) -> Sequence[Problem]: ...
    async def forget(self, order: Order) -> str: ...
    async def reload_policies(self, order: Order) -> Sequence[PolicyInfo]: ...
    async def self_test(self, order: Order) -> OrderResult: ...
    async def verify_log(self) -> tuple[bool, str]: ...
