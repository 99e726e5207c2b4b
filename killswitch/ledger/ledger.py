"""The ledger: what must outlive the daemon. ``put_*`` hand a record to the writer's thread and return at once."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from killswitch.commands import FREE, Finding, Receipt
from killswitch.errors import LedgerError
from killswitch.ledger import reader, schema, witness
from killswitch.ledger.audit import GENESIS
from killswitch.ledger.backlog import Backlog, Entry
from killswitch.ledger.lock import Lock
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
from killswitch.ledger.store import incident_number
from killswitch.ledger.witness import Witness
from killswitch.ledger.writer import BACKOFF, Writer

log = logging.getLogger(__name__)


class Ledger:
    """Made by ``open``. Safe to use from any thread."""

    def __init__(self, path: Path, keep: Retention, backoff: tuple[float, float]) -> None:
        self.path = path
        self.opened = Opened()
        self._keep = keep
        self._lock = Lock(path)
        self._guard = threading.Lock()  # of what follows: the present, as it is to be on disk
        self._desired: dict[str, Desired] = {}
        self._workloads: dict[str, WorkloadRecord] = {}
        self._open: dict[str, IncidentRecord] = {}
        self._charges: dict[str, ChargeRecord] = {}
        self._programs: dict[str, ProgramRecord] = {}
        self._findings: Counter[str] = Counter()  # of each open incident
        self._last_incident = 0
        self._end: tuple[int, str] = 0, GENESIS  # of the audit, as the witness was told last
        self._backlog = Backlog()
        try:
            connection = self._begin()
        except BaseException:
            self._lock.release()
            raise
        self._writer = Writer(
            path,
            self._backlog,
            keep,
            connection,
            on_new=self._put_present,
            present=self._witness,
            end=self._end,
            backoff=backoff,
        )
        self._writer.start()
        if self.opened.new or self.opened.lost:
            self._put_present(self.opened.problem or "there was none")

    @classmethod
    def open(cls, path: Path, *, keep: Retention | None = None, backoff: tuple[float, float] = BACKOFF) -> Ledger:
        """Open, or begin, the ledger at ``path``; its directory must exist. ``opened.problem`` tells what was wrong.

        A corrupt or foreign file is moved aside, and a full or read-only disk does not keep the ledger from opening:
        records then wait in memory. Raises LedgerError when another process has it, or a newer release wrote it.
        """
        if path.is_dir() or not path.parent.is_dir():
            raise LedgerError(f"{path}: cannot be a ledger: it is a directory, or its directory is missing")
        return cls(path, keep or Retention(), backoff)

    def _begin(self) -> sqlite3.Connection | None:
        problem, moved, new, migrated = self._lock.problem, None, False, 0
        connection: sqlite3.Connection | None = None
        saved: tuple[dict[str, Desired], dict[str, WorkloadRecord]] = {}, {}
        for attempt in (1, 2):
            try:
                connection, new, migrated = schema.open_database(self.path)
                self._read_present(connection)
                break
            except (schema.Broken, LedgerError) as error:
                if isinstance(error, LedgerError) and connection is None:
                    raise  # a newer release wrote it
                if connection is not None:
                    connection.close()
                    connection = None
                if attempt == 2:
                    raise LedgerError(f"{self.path}: {error}") from error
                try:
                    moved = schema.move_aside(self.path)
                except OSError as why:
                    problem = f"{self.path}: {error}, and it cannot be moved aside: {why.strerror}"
                    break
                saved = reader.salvage(moved)
                problem = (
                    f"{self.path}: {error}; it was moved to {moved}, and a new ledger was begun with the "
                    f"{len(saved[0])} contained and {len(saved[1])} watched cgroups that could be read from it"
                )
            except (sqlite3.Error, OSError) as error:
                if connection is not None:
                    connection.close()
                    connection = None
                problem = f"{self.path}: cannot be opened for writing: {error}; records wait in memory until it can"
                self._read_what_there_is()
                break
        self._desired.update(saved[0])
        self._workloads.update(saved[1])
        lost = self._hear_witness(connection)
        problem = "; ".join(filter(None, (problem, lost)))
        if problem:
            log.error("%s", problem)
        self.opened = Opened(problem, moved, new, migrated, bool(lost))
        return connection

    def _hear_witness(self, connection: sqlite3.Connection | None) -> str:
        """Take over what only the witness knows, and say what was lost; "" = nothing."""
        told, problem = witness.read(self.path)
        if told is None:
            return problem
        self._end = told.seq, told.head
        missing = witness.stricter(self._desired, told)
        self._desired.update(missing)
        self._last_incident = max(self._last_incident, told.last_incident)
        lost = ""
        with contextlib.suppress(sqlite3.Error):  # what is broken is found and told elsewhere
            lost = witness.loss(connection, told) if connection is not None else ""
        parts = [lost] if lost else []
        if missing:
            parts.append(f"{len(missing)} contained cgroups were taken from {witness.place(self.path)}")
        return f"{self.path}: {'; '.join(parts)}" if parts else ""

    def _witness(self, seq: int, head: str) -> Witness:
        with self._guard:
            return Witness(seq, head, self._last_incident, dict(self._desired))

    def _read_present(self, connection: sqlite3.Connection) -> None:
        """Raises schema.Broken when a page that it needs is no good."""
        try:
            self._desired = reader.desired(connection)
            self._workloads = reader.workloads(connection)
            self._last_incident = reader.last_incident(connection)
            self._charges = reader.charges(connection)
            self._programs = reader.programs(connection)
            self._findings = Counter(reader.findings_of_open(connection))
            self._open = reader.open_incidents(connection)
        except sqlite3.DatabaseError as error:
            if schema.is_broken(error):
                raise schema.Broken(str(error)) from error
            raise
        except (ValueError, TypeError) as error:
            raise schema.Broken(f"a value in it is none that was written: {error}") from error

    def _read_what_there_is(self) -> None:
        """A disk that cannot be written can often be read: containment is on it. ``immutable`` needs no -shm file."""
        for suffix in ("mode=ro", "mode=ro&immutable=1"):
            try:
                connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?{suffix}", uri=True)
                try:
                    return self._read_present(connection)
                finally:
                    connection.close()
            except (sqlite3.Error, schema.Broken, LedgerError) as error:
                log.error("%s: cannot be read (%s): %s", self.path, suffix, error)

    # --- writing ------------------------------------------------------------------------------------------------

    def put_workload(self, record: WorkloadRecord) -> None:
        with self._guard:
            self._workloads[record.cgroup] = record
            self._put("workload", record, key=record.cgroup)

    def forget_workload(self, cgroup: str, reason: str = "") -> None:
        with self._guard:
            if self._workloads.pop(cgroup, None) is not None:
                self._put("workload", reason, key=cgroup, delete=True)

    def put_desired(self, record: Desired) -> None:
        """``containment`` free forgets the cgroup; the audit keeps who asked for it and why (``reason``)."""
        with self._guard:
            if record.containment == FREE:
                if self._desired.pop(record.cgroup, None) is not None:
                    self._put("desired", record.reason, key=record.cgroup, delete=True)
            else:
                self._desired[record.cgroup] = record
                self._put("desired", record, key=record.cgroup)

    def put_incident(self, record: IncidentRecord) -> None:
        """Again whenever it has changed."""
        with self._guard:
            self._last_incident = max(self._last_incident, incident_number(record.id))
            if record.closed_unix:
                self._open.pop(record.id, None)
                self._findings.pop(record.id, None)
            else:
                self._open[record.id] = record
            self._put("incident", record, key=record.id)

    def put_charge(self, record: ChargeRecord) -> None:
        with self._guard:
            self._charges[record.cgroup] = record
            self._put("charge", record, key=record.cgroup)

    def forget_charge(self, cgroup: str, reason: str = "") -> None:
        with self._guard:
            if self._charges.pop(cgroup, None) is not None:
                self._put("charge", reason, key=cgroup, delete=True)

    def put_program(self, record: ProgramRecord) -> None:
        with self._guard:
            self._programs[record.sha256] = record
            self._put("program", record, key=record.sha256)

    def forget_program(self, sha256: str, reason: str = "") -> None:
        with self._guard:
            if self._programs.pop(sha256, None) is not None:
                self._put("program", reason, key=sha256, delete=True)

    def put_finding(self, incident: str, finding: Finding) -> None:
        """Findings of an incident past ``Retention.findings_per_incident`` are counted as dropped."""
        with self._guard:
            self._findings[incident] += 1
            if self._findings[incident] > self._keep.findings_per_incident:
                self._backlog.give_up("finding")
                return
            self._put("finding", finding, group=incident)

    def put_receipt(self, incident: str, receipt: Receipt) -> None:
        self._put("receipt", receipt, group=incident)

    def put_order(self, record: OrderRecord) -> None:
        """When it is accepted, and again when its outcome is known."""
        self._put("order", record, key=record.order_id)

    def note(self, what: str, detail: Mapping[str, str | int | float | bool]) -> None:
        """An entry in the audit alone: the daemon started, policies were loaded, …"""
        self._put(f"note:{what}", dict(detail))

    def _put(self, kind: str, record: object, *, key: str = "", group: str = "", delete: bool = False) -> None:
        self._backlog.put(Entry(kind, key, record, time.time(), group, delete))

    def _put_present(self, why: str) -> None:
        """The file is new: what holds now is written again. In the writer's thread."""
        with self._guard:
            self._put("note:ledger", {"begun": str(self.path), "why": why})
            for w in self._workloads.values():
                self._put("workload", w, key=w.cgroup)
            for d in self._desired.values():
                self._put("desired", d, key=d.cgroup)
            for i in self._open.values():
                self._put("incident", i, key=i.id)
            for c in self._charges.values():
                self._put("charge", c, key=c.cgroup)
            for p in self._programs.values():
                self._put("program", p, key=p.sha256)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was put before is on disk, at most ``timeout`` seconds; whether it is."""
        backlog = self._backlog
        with backlog.changed:
            number = backlog.put_count
            return backlog.changed.wait_for(lambda: backlog.done_count >= number, timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Write what waits and let go of the file. False when something could not be written."""
        written = self._writer.stop(timeout)
        if not written:
            log.error("%s: closed with %d records that are not on disk", self.path, len(self._backlog))
        self._lock.release()
        return written

    # --- reading ------------------------------------------------------------------------------------------------

    def desired(self) -> dict[str, Desired]:
        """How each cgroup is to be contained, by path; from memory. Its id holds in the boot that it names."""
        with self._guard:
            return dict(self._desired)

    def workloads(self) -> dict[str, WorkloadRecord]:
        """The watched workloads by cgroup path; from memory."""
        with self._guard:
            return dict(self._workloads)

    def charges(self) -> dict[str, ChargeRecord]:
        """What counts against the budget of automatic kills, by cgroup path; from memory."""
        with self._guard:
            return dict(self._charges)

    def programs(self) -> dict[str, ProgramRecord]:
        """The executables of incidents, by SHA-256; from memory."""
        with self._guard:
            return dict(self._programs)

    def next_incident(self) -> int:
        """The first number that no incident has had. For ``Engine(first_incident=…)``."""
        with self._guard:
            return self._last_incident + 1

    def incidents(self, *, open_only: bool = False, limit: int = 100) -> list[Incident]:
        """Newest first, with findings and receipts; what still waits to be written is not among them. Reads the disk."""
        with reader.reading(self.path) as connection:
            return reader.incidents(connection, open_only=open_only, limit=limit)

    def incident(self, identifier: str) -> Incident | None:
        with reader.reading(self.path) as connection:
            return reader.incident(connection, identifier)

    def order(self, request_id: str) -> OrderRecord | None:
        """The latest order of that request: what it came to before a restart."""
        with reader.reading(self.path) as connection:
            return reader.order(connection, request_id)

    def last_order(self, verb: str, outcomes: Collection[str]) -> OrderRecord | None:
        """The latest order of this kind on disk that came to one of these (complete, partial, failed)."""
        with reader.reading(self.path) as connection:
            return reader.last_order(connection, verb, outcomes)

    def request_ids(self, limit: int) -> set[str]:
        """Of the latest orders that are on disk."""
        with reader.reading(self.path) as connection:
            return reader.request_ids(connection, limit)

    def verify(self) -> tuple[bool, str]:
        """(whole, text): the hash chain, and every record against it. Reads the whole file: not in the event loop."""
        return reader.verify(self.path)

    def alive(self, timeout: float) -> bool:
        """Whether the writer's thread answers; blocks that long at most. What a watchdog asks."""
        return self._writer.alive(timeout)

    def health(self) -> LedgerHealth:
        """Never blocks."""
        backlog, dropped, error = len(self._backlog), self._backlog.dropped, self._writer.error
        parts = [f"cannot be written: {error}"] if error else []
        if self._writer.witness_error:
            parts.append(self._writer.witness_error)
        if self.opened.problem:
            parts.append(f"as it was opened: {self.opened.problem}")
        if dropped:
            parts.append("lost " + ", ".join(f"{n} of kind {kind}" for kind, n in sorted(dropped.items())))
        if backlog:
            parts.append(f"{backlog} records wait")
        ok = not error and not self._writer.witness_error and not dropped.keys() - {"finding"}
        return LedgerHealth(
            ok, f"{self.path}: {'; '.join(parts) or 'all is on disk'}", backlog, self._writer.last_success, dropped
        )
