from __future__ import annotations

import asyncio

import pytest

from killswitch.control.lagging import Lagging
from killswitch.control.service import StreamItem
from killswitch.events import Tick


def item(n: int, dropped: int = 0) -> StreamItem:
    return StreamItem(event=Tick(n), dropped=dropped)


async def rest(queue: Lagging) -> list[tuple[int, int]]:
    return [(i.event.time_ns, i.dropped) async for i in queue if i.event is not None]


def test_what_fits_comes_in_order_and_the_end_comes_after_it() -> None:
    queue = Lagging(3)
    for n in range(3):
        queue.put(item(n))
    queue.close()
    assert asyncio.run(rest(queue)) == [(0, 0), (1, 0), (2, 0)]


def test_the_oldest_goes_and_what_it_had_counted_is_counted_on() -> None:
    queue = Lagging(2)
    queue.put(item(0, dropped=5))
    for n in range(1, 5):
        queue.put(item(n))
    queue.close()
    assert asyncio.run(rest(queue)) == [(3, 5 + 3), (4, 0)]


def test_an_error_ends_the_iteration_after_what_was_queued() -> None:
    async def script() -> None:
        queue = Lagging()
        queue.put(item(1))
        queue.close(OSError("gone"))
        got = []
        with pytest.raises(OSError, match="gone"):
            async for i in queue:
                got.append(i)
        assert got == [item(1)]

    asyncio.run(script())


def test_a_reader_that_waits_is_woken() -> None:
    async def script() -> None:
        queue = Lagging()
        reading = asyncio.create_task(rest(queue))
        await asyncio.sleep(0)
        queue.put(item(1))
        await asyncio.sleep(0)
        queue.put(item(2))
        queue.close()
        assert await reading == [(1, 0), (2, 0)]

    asyncio.run(script())
