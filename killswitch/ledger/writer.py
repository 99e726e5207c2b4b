"""The one thread that writes. Whatever befalls the file, records wait in the backlog and are written when it works again."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from killswitch.errors import LedgerError
from killswitch.ledger import retention, schema, witness
from killswitch.ledger.backlog import Backlog, Entry
from killswitch.ledger.records import Retention
from killswitch.ledger.store import Store
from killswitch.ledger.witness import Witness

log = logging.getLogger(__name__)

BATCH = 512  # records in one transaction, and so in one fsync
BACKOFF = (0.05, 5.0)  # seconds: the first wait after a failure, and the longest
PRUNE_EVERY = 2_000  # records


class Writer:
    """``connection`` is used by this thread alone once it runs; None: there is none yet, and it is tried again."""

    def __init__(
        self,
        path: Path,
        backlog: Backlog,
        keep: Retention,
        connection: sqlite3.Connection | None,
        *,
        on_new: Callable[[str], None],
        present: Callable[[int, str], Witness],
        end: tuple[int, str],
        backoff: tuple[float, float] = BACKOFF,
    ) -> None:
        """``on_new(why)`` is called, in the writer's thread, when the file had to be begun anew: put again what counts.
        ``present(seq, head)`` is what the witness is to tell, of an audit that ends so; ``end`` is what it was told last."""
        self._path = path
        self._backlog = backlog
        self._keep = keep
        self._connection = connection
        self._inode = _inode(path) if connection is not None else None
        self._on_new = on_new
        self._present = present
        self._end = end  # of the audit, as it is on disk
        self._untold = False  # the witness does not know yet what is to be contained
        self._backoff = backoff
        self._stop = False
        self._asked = self._answered = 0
        self._since_prune = PRUNE_EVERY  # once at the start
        self.error = ""
        self.witness_error = ""
        self.last_success = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Write what waits, once more, and end. False when something could not be written in time."""
        with self._backlog.changed:
            self._stop = True
            self._backlog.changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not len(self._backlog)

    def alive(self, timeout: float) -> bool:
        """Whether the thread answers within ``timeout`` seconds, be the disk as it may."""
        changed = self._backlog.changed
        with changed:
            self._asked += 1
            number = self._asked
            changed.notify_all()
            return changed.wait_for(lambda: self._answered >= number, timeout)

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait = self._backoff[0]
        while True:
            with self._backlog.changed:
                self._backlog.changed.wait_for(self._has_work, self._backoff[1] if self._untold else None)
                self._answer()
                batch = self._backlog.take(BATCH)
                stop = self._stop
            if not batch:
                self._tell_witness()
                if stop:
                    self._close()
                    return
                continue
            self._untold |= any(entry.kind == "desired" for entry in batch)
            try:
                self._write(batch)
            except (sqlite3.Error, OSError, LedgerError) as error:
                self._failed(error)
                self._tell_witness()
                if stop:
                    self._close()
                    return
                self._pause(wait)
                wait = min(wait * 2, self._backoff[1])
                continue
            wait = self._backoff[0]
            if self.error:
                log.warning("%s: works again; %d records waited", self._path, len(self._backlog))
            self.error = ""
            self._tell_witness()
            self._backlog.done()
            if not len(self._backlog):
                self.last_success = time.monotonic()

    def _tell_witness(self) -> None:
        """Behind the database, and also when that has failed: it may be the file that is at fault, and not the disk."""
        if not self._untold:
            return
        try:
            witness.write(self._path, self._present(*self._end))
        except OSError as error:
            text = f"{witness.place(self._path)}: cannot be written: {error.strerror}"
            if text != self.witness_error:
                log.error("%s; until it can, what is to be contained is told by the ledger alone", text)
            self.witness_error = text
            return
        self._untold, self.witness_error = False, ""

    def _has_work(self) -> bool:
        return bool(len(self._backlog)) or self._stop or self._asked != self._answered

    def _answer(self) -> None:
        """With ``changed`` held."""
        if self._asked != self._answered:
            self._answered = self._asked
            self._backlog.changed.notify_all()

    def _pause(self, seconds: float) -> None:
        """Wait, but answer who asks, and end at once when told to stop."""
        until = time.monotonic() + seconds
        with self._backlog.changed:
            while not self._stop and (left := until - time.monotonic()) > 0:
                self._backlog.changed.wait_for(lambda: self._stop or self._asked != self._answered, left)
                self._answer()

    def _failed(self, error: Exception) -> None:
        text = str(error)
        if text != self.error:  # once, not at every try
            log.error("%s: cannot be written: %s; %d records wait in memory", self._path, text, len(self._backlog))
        self.error = text
        if not schema.may_pass(error):  # a file that was opened on a read-only disk stays read-only: open it again
            self._close()
        if isinstance(error, sqlite3.Error) and schema.is_broken(error):
            try:
                moved = schema.move_aside(self._path)
            except OSError as why:
                self.error = f"{text}; and it cannot be moved aside: {why}"
                return
            self._new(f"it broke while in use ({text}) and was moved to {moved}")

    def _new(self, why: str) -> None:
        log.error("%s: %s; a new ledger is begun", self._path, why)
        self._on_new(why)

    def _write(self, batch: list[Entry]) -> None:
        connection = self._connect()
        try:
            self._transaction(connection, batch)
        except Exception as error:
            if _of_the_file(error):
                raise
            for entry in batch:  # one of them cannot be kept: it must not hold up the others
                try:
                    self._transaction(connection, [entry])
                except Exception as why:
                    if _of_the_file(why):
                        raise
                    self._backlog.give_up(entry.kind)
                    log.error("%s: a record of kind %s cannot be kept: %r", self._path, entry.kind, why)
        self._since_prune += len(batch)
        if self._since_prune >= PRUNE_EVERY:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                more = retention.prune(connection, self._keep)
            if not more:
                self._since_prune = 0

    def _transaction(self, connection: sqlite3.Connection, batch: list[Entry]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # COMMIT, or ROLLBACK when it raises
            store = Store(connection)
            for entry in batch:
                store.write(entry)
        self._end = store.end

    def _connect(self) -> sqlite3.Connection:
        """The connection to the file that has the ledger's name now; whoever removed it does not silence us."""
        if self._connection is not None and _inode(self._path) == self._inode:
            return self._connection
        removed = self._connection is not None
        self._close()
        try:
            self._connection, new, _ = schema.open_database(self._path)
        except schema.Broken as why:
            moved = schema.move_aside(self._path)
            self._connection, new, _ = schema.open_database(self._path)
            self._new(f"{why}; it was moved to {moved}")
        else:
            if new and removed:
                self._new("the file was removed while in use")
        self._inode = _inode(self._path)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            try:
                self._connection.close()
            except sqlite3.Error as error:
                log.error("%s: closing: %s", self._path, error)
            self._connection = None


def _of_the_file(error: Exception) -> bool:
    """Whether to try the same again later; otherwise the record itself is at fault."""
    return isinstance(error, sqlite3.Error | OSError) and not isinstance(error, sqlite3.IntegrityError)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino
