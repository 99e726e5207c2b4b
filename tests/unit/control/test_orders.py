"""An order is carried out once, to its end, whatever its callers do."""

from __future__ import annotations

import asyncio

import pytest

from killswitch.control.orders import AlreadyUsed, Orders


class Work:
    """Counts how often it was begun; ends when it is let."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()
        self.ended = 0

    async def __call__(self) -> str:
        self.begun += 1
        number = self.begun
        await self.go.wait()
        self.ended += 1
        return f"answer {number}"


def test_the_same_id_joins_what_runs_and_is_answered_from_memory_after() -> None:
    async def script() -> None:
        orders, work = Orders(), Work()
        first = asyncio.create_task(orders.once("id", b"kill", work))
        second = asyncio.create_task(orders.once("id", b"kill", work))
        await asyncio.sleep(0)
        assert orders.running == 1
        work.go.set()
        assert await first == await second == "answer 1"
        assert await orders.once("id", b"kill", work) == "answer 1"
        assert work.begun == 1 and orders.running == 0

    asyncio.run(script())


def test_a_caller_that_goes_away_does_not_cancel_the_order() -> None:
    async def script() -> None:
        orders, work = Orders(), Work()
        caller = asyncio.create_task(orders.once("id", b"kill", work))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert work.begun == 1 and orders.running == 1
        work.go.set()
        assert await orders.finish(10) == 0
        assert work.ended == 1
        assert await orders.once("id", b"kill", work) == "answer 1"

    asyncio.run(script())


@pytest.mark.parametrize("finished", [False, True])
def test_the_same_id_for_another_order_is_refused(finished: bool) -> None:
    async def script() -> None:
        orders, work = Orders(), Work()
        running = asyncio.create_task(orders.once("id", b"kill", work))
        if finished:
            work.go.set()
            await running
        else:
            await asyncio.sleep(0)
        with pytest.raises(AlreadyUsed, match="'id'"):
            await orders.once("id", b"release", work)
        work.go.set()
        await running

    asyncio.run(script())


def test_an_order_that_failed_may_be_tried_again() -> None:
    async def script() -> None:
        orders, tries = Orders(), 0

        async def fails_once() -> str:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise OSError("no")
            return "done"

        with pytest.raises(OSError, match="no"):
            await orders.once("id", b"kill", fails_once)
        assert await orders.once("id", b"kill", fails_once) == "done"

    asyncio.run(script())


def test_memory_is_bounded_and_never_forgets_what_runs() -> None:
    async def script() -> None:
        orders, work = Orders(remembered=3), Work()
        slow = asyncio.create_task(orders.once("slow", b"kill", work))
        await asyncio.sleep(0)
        counts: dict[str, int] = {}

        async def quick(name: str) -> str:
            counts[name] = counts.get(name, 0) + 1
            return name

        for n in range(10):
            await orders.once(f"id-{n}", b"x", lambda n=n: quick(f"id-{n}"))  # type: ignore[misc]
        for n in (9, 0):
            await orders.once(f"id-{n}", b"x", lambda n=n: quick(f"id-{n}"))  # type: ignore[misc]
        assert counts["id-9"] == 1 and counts["id-0"] == 2
        again = asyncio.create_task(orders.once("slow", b"kill", work))
        work.go.set()
        assert await again == await slow == "answer 1" and work.begun == 1

    asyncio.run(script())


def test_finish_gives_up_after_its_time_and_says_how_many_are_left() -> None:
    async def script() -> None:
        orders, work = Orders(), Work()
        caller = asyncio.create_task(orders.once("id", b"kill", work))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await orders.finish(0.01) == 1
        work.go.set()
        await caller

    asyncio.run(script())
