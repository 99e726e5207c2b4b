"""What is waiting to be written. ``put`` never blocks and never raises; what does not fit is counted by kind."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ORDINARY = 4_096  # findings: a flood of them must not push out what matters
IMPORTANT = 16_384  # everything else


@dataclass(slots=True)
class Entry:
    kind: str  # finding, receipt, incident, desired, workload, order, note, …
    key: str  # newer entries of the same kind and key replace the record; "" = each stands for itself
    record: Any
    time_unix: float
    group: str = ""
    delete: bool = False


class Backlog:
    """Shared by whoever puts and the writer; ``changed`` guards everything and is notified when anything changes."""

    def __init__(self, ordinary: int = ORDINARY, important: int = IMPORTANT) -> None:
        self.changed = threading.Condition()
        self._limits = {True: ordinary, False: important}
        self._held = {True: 0, False: 0}
        self._entries: deque[Entry] = deque()
        self._latest: dict[tuple[str, str], Entry] = {}
        self._taken = 0  # entries at the front that the writer is writing
        self._dropped: Counter[str] = Counter()
        self.put_count = 0  # entries ever accepted
        self.done_count = 0  # of these, written or given up

    def put(self, entry: Entry) -> None:
        ordinary = entry.kind == "finding"
        with self.changed:
            if self._held[ordinary] >= self._limits[ordinary]:
                waiting = self._latest.get((entry.kind, entry.key)) if entry.key else None
                if waiting is not None:  # the newest is what counts: it takes the place of the one that waits
                    waiting.record, waiting.delete, waiting.time_unix = entry.record, entry.delete, entry.time_unix
                    return
                if entry.kind != "desired":  # of which there is one a cgroup at most
                    self._dropped[entry.kind] += 1
                    return
            self._entries.append(entry)
            self._held[ordinary] += 1
            self.put_count += 1
            if entry.key:
                self._latest[entry.kind, entry.key] = entry
            self.changed.notify_all()

    def take(self, limit: int) -> list[Entry]:
        """The oldest, which stay in the backlog until ``done``. Call with ``changed`` held."""
        batch = [self._entries[i] for i in range(min(limit, len(self._entries)))]
        for entry in batch:  # what is being written must not change any more
            if self._latest.get((entry.kind, entry.key)) is entry:
                del self._latest[entry.kind, entry.key]
        self._taken = len(batch)
        return batch

    def done(self) -> None:
        """What was taken is written."""
        with self.changed:
            for _ in range(self._taken):
                self._held[self._entries.popleft().kind == "finding"] -= 1
            self.done_count += self._taken
            self._taken = 0
            self.changed.notify_all()

    def give_up(self, kind: str) -> None:
        """Count a record that no retry will write."""
        with self.changed:
            self._dropped[kind] += 1

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def dropped(self) -> Mapping[str, int]:
        with self.changed:
            return dict(self._dropped)
