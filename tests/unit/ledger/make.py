"""Plain records for the ledger's tests."""

from __future__ import annotations

from pathlib import Path

from killswitch.commands import Containment, Finding, Level, Mode, Outcome, Receipt, Response, Step
from killswitch.events import Fork
from killswitch.ledger import Desired, IncidentRecord, Ledger, OrderRecord, Retention, WorkloadRecord

QUICK = (0.005, 0.02)  # seconds between tries


def opened(path: Path, keep: Retention | None = None) -> Ledger:
    return Ledger.open(path, keep=keep, backoff=QUICK)


def desired(cgroup: str = "/a/b", containment: Containment | None = None, boot: str = "boot-1") -> Desired:
    return Desired(cgroup, 42, boot, "b", containment or Containment(True, True), "inc-1", "it mines", 1.7e9)


def workload(cgroup: str = "/a/b") -> WorkloadRecord:
    return WorkloadRecord(cgroup, 42, "boot-1", "b", ("rogue-agent",), True, 1.7e9)


def incident(n: int = 1, closed: float = 0.0) -> IncidentRecord:
    return IncidentRecord(f"inc-{n}", 42, "b", "/a/b", 1.7e9 + n, closed, "it mines", "high", Containment(True))


def finding(n: int = 1) -> Finding:
    return Finding(
        n, 42, "rogue-agent", "miner", "Known miner", Level.HIGH, Mode.ENFORCE, (Response.SEVER,), (), 7, 8,
        f"pid 7 ran xmrig \udcff {n}", Fork(n, 42, 42, 7, 8, 1, 1), 31,
    )  # fmt: skip


def receipt(n: int = 1) -> Receipt:
    return Receipt(Step.SEVER, Outcome.DONE, 42, n, n + 1, {"dropped": n, "how": "map", "share": 0.5})


def order(n: int = 1, outcome: str = "accepted") -> OrderRecord:
    return OrderRecord(f"ord-{n}", f"req-{n}", "kill", "b", "it mines", "admin", 1.7e9 + n, 42, "inc-1", outcome)


def fill(ledger: Ledger, incidents: int = 3, closed: float = 0.0) -> None:
    ledger.put_workload(workload())
    ledger.put_desired(desired())
    for n in range(1, incidents + 1):
        ledger.put_incident(incident(n))
        ledger.put_finding(f"inc-{n}", finding(n))
        ledger.put_receipt(f"inc-{n}", receipt(n))
        ledger.put_order(order(n))
        if closed:
            ledger.put_incident(incident(n, closed + n))
