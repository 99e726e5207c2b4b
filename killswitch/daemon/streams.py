"""Fan-out of events, findings and receipts to whoever follows them.

Nobody following costs one ``if``. A slow reader never slows the daemon: its queue is bounded, what does not fit is
counted, and it is told how many it has missed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from killswitch.control.lagging import DEPTH, Lagging
from killswitch.control.service import EventFilter, StreamItem
from killswitch.events import (
    Answered,
    CgroupCreated,
    CgroupMove,
    CgroupRemoved,
    Connect,
    Cpu,
    Denied,
    Event,
    Exec,
    Exit,
    File,
    Flow,
    Fork,
    Listen,
    Lost,
    Released,
    Signal,
    Tick,
    Unanswered,
    Unattended,
    Wire,
    WorkloadAdded,
    WorkloadRemoved,
)
from killswitch.machinecode import Code

KIND: dict[type, str] = {
    Exec: "exec",
    Fork: "fork",
    Exit: "exit",
    Connect: "connect",
    Listen: "listen",
    Unanswered: "unanswered",
    Answered: "answered",
    Wire: "wire",
    File: "file",
    Signal: "signal",
    Denied: "denied",
    Flow: "flow",
    CgroupMove: "cgroup_move",
    CgroupCreated: "cgroup_created",
    CgroupRemoved: "cgroup_removed",
    Cpu: "cpu",
    Code: "code",
    Lost: "lost",
    Unattended: "unattended",
    Tick: "tick",
    WorkloadAdded: "workload_added",
    WorkloadRemoved: "workload_removed",
    Released: "released",
}


def kind_of(item: StreamItem) -> str:
    if item.event is not None:
        return KIND[type(item.event)]
    return "finding" if item.finding is not None else "receipt"


class _Reader:
    def __init__(self, wanted: EventFilter, depth: int) -> None:
        self.wanted = wanted
        self.queue = Lagging(depth)

    def offer(self, item: StreamItem, kind: str, workload_id: int) -> None:
        wanted = self.wanted
        if wanted.kinds and kind not in wanted.kinds:
            return
        if wanted.workload and wanted.workload not in (item.workload_name, str(workload_id)):
            return
        self.queue.put(item)


class Streams:
    def __init__(self, depth: int = DEPTH) -> None:
        self._depth = depth
        self._readers: set[_Reader] = set()

    def __bool__(self) -> bool:
        """Whether anybody follows: ask before building an item."""
        return bool(self._readers)

    def event(self, event: Event, workload_name: str) -> None:
        self._offer(StreamItem(event=event, workload_name=workload_name), getattr(event, "workload", 0))

    def publish(self, item: StreamItem, workload: int) -> None:
        self._offer(item, workload)

    def _offer(self, item: StreamItem, workload: int) -> None:
        kind = kind_of(item)
        for reader in self._readers:
            reader.offer(item, kind, workload)

    async def follow(self, wanted: EventFilter) -> AsyncIterator[StreamItem]:
        """Items from now on, until the caller goes away or ``close``. ``wanted.workload`` is a name or an id."""
        reader = _Reader(wanted, self._depth)
        self._readers.add(reader)
        try:
            async for item in reader.queue:
                yield item
        finally:
            self._readers.discard(reader)

    def close(self) -> None:
        for reader in self._readers:
            reader.queue.close()
