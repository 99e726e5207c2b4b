"""The incidents that are open, or were closed lately, in memory; the ledger keeps them all."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from killswitch.commands import FREE, Containment, Finding, Level, Receipt
from killswitch.control.service import IncidentInfo

KEEP_CLOSED = 256
KEEP_FINDINGS = 200  # of one incident in memory: the ledger has the others, and a flood must not fill memory
_ORDER = list(Level)


@dataclass(slots=True)
class Incident:
    id: str
    workload: int
    workload_name: str
    cgroup: str
    reason: str
    opened_unix: float = field(default_factory=time.time)
    closed_unix: float = 0.0
    level: Level | None = None
    containment: Containment = FREE
    findings: list[Finding] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    evidence: str = ""
    after: str = ""  # the incident of the same workload that an operator had released before this one

    def add(self, finding: Finding) -> None:
        if self.level is None or _ORDER.index(finding.level) > _ORDER.index(self.level):
            self.level = finding.level
        if len(self.findings) < KEEP_FINDINGS:
            self.findings.append(finding)

    def add_receipt(self, receipt: Receipt) -> None:
        if len(self.receipts) < KEEP_FINDINGS:
            self.receipts.append(receipt)

    def info(self) -> IncidentInfo:
        return IncidentInfo(
            id=self.id,
            workload=self.workload,
            workload_name=self.workload_name,
            cgroup=self.cgroup,
            opened_unix=self.opened_unix,
            closed_unix=self.closed_unix,
            reason=self.reason,
            level=str(self.level or ""),
            containment=self.containment,
            findings=tuple(self.findings),
            receipts=tuple(self.receipts),
            evidence=self.evidence,
            after=self.after,
        )


class Incidents:
    def __init__(self) -> None:
        self._all: OrderedDict[str, Incident] = OrderedDict()

    def get(self, incident: str) -> Incident | None:
        return self._all.get(incident)

    def add(self, incident: Incident) -> Incident:
        self._all[incident.id] = incident
        closed = [i for i in self._all.values() if i.closed_unix]
        for old in closed[: max(0, len(closed) - KEEP_CLOSED)]:
            del self._all[old.id]
        return incident

    def open(self) -> list[Incident]:
        return [i for i in self._all.values() if not i.closed_unix]

    def of_cgroup(self, cgroup: str) -> list[Incident]:
        """Of the workload at this path, oldest first."""
        return [i for i in self._all.values() if i.cgroup == cgroup]

    def newest(self) -> list[Incident]:
        return list(reversed(self._all.values()))
