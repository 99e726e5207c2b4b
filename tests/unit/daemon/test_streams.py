from __future__ import annotations

import asyncio

from killswitch.control.service import EventFilter, StreamItem
from killswitch.daemon.streams import KIND, Streams
from killswitch.events import Event, Fork


def fork(workload: int, pid: int = 1) -> Fork:
    return Fork(0, workload, workload, pid, 1, 1, 1)


async def collect(streams: Streams, wanted: EventFilter, items: list[tuple[Event, str]]) -> list[StreamItem]:
    found: list[StreamItem] = []

    async def follow() -> None:
        async for item in streams.follow(wanted):
            found.append(item)

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    assert streams
    for event, name in items:
        streams.event(event, name)
    streams.close()
    await task
    assert not streams
    return found


def test_every_event_has_a_kind() -> None:
    assert set(KIND) == set(Event.__args__)


def test_nobody_follows() -> None:
    assert not Streams()


def test_filtered_by_workload_name_or_id_and_kind() -> None:
    items: list[tuple[Event, str]] = [(fork(1), "a"), (fork(2), "b")]
    for wanted, names in (
        (EventFilter(), ["a", "b"]),
        (EventFilter(workload="b"), ["b"]),
        (EventFilter(workload="1"), ["a"]),
        (EventFilter(kinds=("exec",)), []),
        (EventFilter(workload="a", kinds=("fork",)), ["a"]),
    ):
        found = asyncio.run(collect(Streams(), wanted, items))
        assert [item.workload_name for item in found] == names


def test_slow_reader_is_told_what_it_missed() -> None:
    found = asyncio.run(collect(Streams(depth=2), EventFilter(), [(fork(1, pid), "a") for pid in range(5)]))
    assert [item.event.pid for item in found] == [3, 4]  # type: ignore[union-attr]
    assert sum(item.dropped for item in found) == 3
