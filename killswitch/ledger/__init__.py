"""What must outlive the daemon: orders, containment, incidents, a hash-chained audit. SQLite, one writer's thread."""

from killswitch.ledger.ledger import Ledger
from killswitch.ledger.records import (
    ChargeRecord,
    Desired,
    Incident,
    IncidentRecord,
    LedgerHealth,
    Opened,
    OrderRecord,
    ProgramRecord,
    Retention,
    WorkloadRecord,
)

__all__ = [
    "ChargeRecord",
    "Desired",
    "Incident",
    "IncidentRecord",
    "Ledger",
    "LedgerHealth",
    "Opened",
    "OrderRecord",
    "ProgramRecord",
    "Retention",
    "WorkloadRecord",
]
