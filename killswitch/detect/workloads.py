"""The workloads that are watched, and their open incidents: what the daemon tells of them by other ways than events, and asks."""

from __future__ import annotations

from collections.abc import Iterator

from killswitch.commands import Containment
from killswitch.detect.judge import mask
from killswitch.detect.workload import Workload
from killswitch.events import WorkloadAdded


class Workloads:
    """By number (the id of the cgroup). Incidents are ``inc-<n>``, counted from ``first_incident``; a workload has one open
    at most."""

    def __init__(self, first_incident: int) -> None:
        self._next_incident = first_incident
        self._known: dict[int, Workload] = {}

    def __iter__(self) -> Iterator[Workload]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, workload: int) -> Workload:
        return self._known[workload]

    def get(self, workload: int) -> Workload | None:
        return self._known.get(workload)

    def add(self, event: WorkloadAdded) -> None:
        """Also of one that is known: what is known of its processes and of its incident stays."""
        known = self._known.get(event.workload)
        if known is None:
            known = self._known[event.workload] = Workload(event.workload, event.name, event.cgroup, 0)
        known.name, known.cgroup, known.policies = event.name, event.cgroup, mask(event.policies)

    def remove(self, workload: int) -> Workload | None:
        return self._known.pop(workload, None)

    def adopt(self, workload: int, containment: Containment, *, incident: str = "", captured: bool = False) -> None:
        """Tell how a known workload is contained by other hands: an operator's order, or what a restart has found.

        ``incident`` names its open incident. Nothing comes out; findings join that incident, and containment is asked for
        again only where a finding asks for more.
        """
        known = self._known[workload]
        known.containment = containment
        known.captured = known.captured or captured
        known.incident = incident or known.incident

    def open_incident(self, workload: int) -> str:
        """The open incident of a known workload; opened if there is none (an operator's order is one, too)."""
        known = self._known[workload]
        if not known.incident:
            known.incident = f"inc-{self._next_incident}"
            self._next_incident += 1
        return known.incident

    def asked_for(self, workload: int) -> dict[tuple[int, int], tuple[bytes, bytes]]:
        """Of each known process, by (pid, start ticks): its executable, and the path that was asked for (a script's)."""
        known = self._known.get(workload)
        return {(p.pid, p.start_ticks): (p.executable, p.filename) for p in known.processes} if known else {}

    def process_of(self, pid: int) -> tuple[int, int] | None:
        """(workload, start ticks) of the latest process of this pid, also when it has ended; None = of no workload."""
        for workload in self:
            if (process := workload.processes.last(pid)) is not None:
                return workload.id, process.start_ticks
        return None
