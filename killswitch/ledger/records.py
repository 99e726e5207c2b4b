"""What the ledger keeps, besides ``commands.Finding`` and ``commands.Receipt``. Times named ``_unix`` are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from killswitch.commands import FREE, Containment, Finding, Receipt, Response


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """A watched cgroup. The key is its path: a cgroup's id means nothing after a reboot."""

    cgroup: str  # path below the cgroup v2 root
    cgroup_id: int
    boot_id: str  # the boot in which ``cgroup_id`` holds
    name: str
    policies: tuple[str, ...]  # names; () with ``explicit``: an operator asked for it
    explicit: bool
    since_unix: float


@dataclass(frozen=True, slots=True)
class Desired:
    """How a cgroup is to be contained, until an operator releases it."""

    cgroup: str
    cgroup_id: int
    boot_id: str
    name: str
    containment: Containment
    incident: str
    reason: str
    time_unix: float


@dataclass(frozen=True, slots=True)
class IncidentRecord:
    id: str  # "inc-<n>"
    workload: int  # cgroup id
    workload_name: str
    cgroup: str
    opened_unix: float
    closed_unix: float = 0.0  # 0 = open
    reason: str = ""
    level: str = ""
    containment: Containment = FREE
    evidence: str = ""
    boot_id: str = ""
    after: str = ""  # the incident of the same workload that was released before it


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident with what belongs to it, as it is read back."""

    record: IncidentRecord
    findings: tuple[Finding, ...]  # oldest first
    receipts: tuple[Receipt, ...]  # oldest first


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """What an operator ordered, and what came of it (``put_order`` again when it is known)."""

    order_id: str
    request_id: str
    verb: str  # kill, sever, release, …
    target: str
    reason: str
    role: str
    time_unix: float
    workload: int = 0
    incident: str = ""
    outcome: str = "accepted"  # then complete, partial or failed
    error: str = ""
    content: str = ""  # digest of the whole order as it came in; known when it is answered
    answer: str = ""  # what was answered, in the control plane's own writing; "" = nothing (yet)


@dataclass(frozen=True, slots=True)
class ChargeRecord:
    """A workload that counts against the budget of automatic kills."""

    cgroup: str
    time_unix: float


@dataclass(frozen=True, slots=True)
class ProgramRecord:
    """The executable of an incident, which is its continuation wherever it is seen again."""

    sha256: str
    size: int  # bytes
    incident: str
    workload: str  # the cgroup where it was found
    rule: str  # "policy/rule" that found it
    level: str
    responses: tuple[Response, ...]
    path: str  # what it was called then, for people
    time_unix: float


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept. Open incidents and desired containment always are."""

    closed_incidents: int = 2_000
    closed_seconds: float = 365 * 86_400.0  # since the incident was closed
    findings_per_incident: int = 2_000
    findings: int = 100_000  # of all incidents; past it, closed incidents go, oldest first
    loose_receipts: int = 10_000  # that belong to no incident
    orders: int = 10_000
    audit: int = 200_000  # entries; the older half is folded into a checkpoint when there are more, and 4 a record


@dataclass(frozen=True, slots=True)
class Opened:
    """How the ledger was found. ``problem``: a sentence for people, empty when all was well."""

    problem: str = ""
    moved_to: Path | None = None  # where a file that could not be used lies now
    new: bool = False  # there was none, or it could not be used
    migrated_from: int = 0  # schema version that was brought up to date, 0 = none
    lost: bool = False  # it does not have all that the witness beside it saw in it


@dataclass(frozen=True, slots=True)
class LedgerHealth:
    ok: bool
    detail: str
    backlog: int  # records that are not on disk yet
    last_success: float  # time.monotonic() of the last time that everything put so far was on disk
    dropped: Mapping[str, int] = field(default_factory=dict)  # records lost for ever, by kind
