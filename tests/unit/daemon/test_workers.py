from __future__ import annotations

import asyncio
import threading

import pytest

from killswitch.daemon.workers import MAX_LOST, Workers


def test_what_it_returns_and_raises_comes_back() -> None:
    async def scene() -> None:
        workers = Workers("test", 2)
        assert await asyncio.gather(*(workers.run(lambda n=n: n * n, 10) for n in range(20))) == [
            n * n for n in range(20)
        ]  # type: ignore[misc]
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0, 10)
        assert (workers.waiting, workers.lost) == (0, 0)

    asyncio.run(scene())


def test_one_that_hangs_holds_up_nobody_and_is_taken_back_when_it_returns() -> None:
    async def scene() -> None:
        workers, gate = Workers("test", 1), threading.Event()
        try:
            for _ in range(3):
                with pytest.raises(TimeoutError, match="not done"):
                    await workers.run(gate.wait, 0.01)
            assert workers.lost == 3
            assert await workers.run(lambda: "served", 10) == "served"
        finally:
            gate.set()
        while workers.lost:
            await asyncio.sleep(0.001)
        assert await workers.run(lambda: "still", 10) == "still"

    asyncio.run(scene())


def test_past_a_limit_no_more_threads_are_started() -> None:
    async def scene() -> None:
        workers, gate = Workers("test", 1), threading.Event()
        try:
            for _ in range(MAX_LOST):
                with pytest.raises(TimeoutError):
                    await workers.run(gate.wait, 0.001)
            before = threading.active_count()
            with pytest.raises(TimeoutError, match="hang"):
                await workers.run(lambda: None, 10)
            assert threading.active_count() == before
        finally:
            gate.set()

    asyncio.run(scene())


def test_who_waits_behind_one_that_hangs_is_served_when_it_is_given_up() -> None:
    async def scene() -> None:
        workers, gate = Workers("test", 1), threading.Event()
        try:
            hangs = asyncio.ensure_future(workers.run(gate.wait, 0.05))
            await asyncio.sleep(0)
            waits = asyncio.ensure_future(workers.run(lambda: "served", 10))
            with pytest.raises(TimeoutError, match="not done"):
                await hangs
            assert await asyncio.wait_for(waits, 10) == "served"  # and nobody had to hand in another
        finally:
            gate.set()

    asyncio.run(scene())


def test_who_waits_when_the_last_thread_hangs_is_told_so() -> None:
    async def scene() -> None:
        workers, gate = Workers("test", 1), threading.Event()
        try:
            work = [asyncio.ensure_future(workers.run(gate.wait, 0.001)) for _ in range(MAX_LOST + 3)]
            done, waiting = await asyncio.wait(work, timeout=10)
            assert not waiting
            assert all(isinstance(task.exception(), TimeoutError) for task in done)
            assert workers.waiting == 0
        finally:
            gate.set()

    asyncio.run(scene())


def test_one_owners_hanging_files_take_no_thread_from_another() -> None:
    async def scene() -> None:
        workers, gate = Workers("test", 2), threading.Event()
        try:
            hostile = [asyncio.ensure_future(workers.run(gate.wait, 30, owner=1)) for _ in range(40)]
            await asyncio.sleep(0)
            for owner in (2, 3, 4):  # while the first two hang, long before they are given up
                assert await asyncio.wait_for(workers.run(lambda: "served", 30, owner=owner), 10) == "served"
            assert not any(task.done() for task in hostile)
        finally:
            gate.set()
            await asyncio.wait(hostile, timeout=10)

    asyncio.run(scene())


def test_an_owner_that_has_lost_its_threads_is_refused_and_the_others_go_on() -> None:
    async def scene() -> None:
        workers, gate = Workers("test", 2), threading.Event()
        try:
            work = [asyncio.ensure_future(workers.run(gate.wait, 0.001, owner=1)) for _ in range(MAX_LOST + 5)]
            await asyncio.wait(work, timeout=20)
            assert sum("not done" in str(task.exception()) for task in work) <= MAX_LOST + 1
            with pytest.raises(TimeoutError, match="same workload"):
                await workers.run(lambda: None, 10, owner=1)
            for owner in range(2, 30):
                assert await workers.run(lambda: "served", 10, owner=owner) == "served"
        finally:
            gate.set()
        while workers.lost:
            await asyncio.sleep(0.001)
        assert await workers.run(lambda: "again", 10, owner=1) == "again"

    asyncio.run(scene())


def test_owners_take_turns() -> None:
    async def scene() -> None:
        workers, order = Workers("test", 1), []
        busy = [
            asyncio.ensure_future(workers.run(lambda o=o: order.append(o), 10, owner=o))  # type: ignore[misc]
            for o in (1,) * 50 + (2,) * 3
        ]
        await asyncio.gather(*busy)
        assert [n for n, owner in enumerate(order) if owner == 2][-1] < 10, "three of another's are not behind fifty"

    asyncio.run(scene())


def test_what_is_cancelled_while_it_waits_is_not_begun() -> None:
    async def scene() -> None:
        workers, gate, ran = Workers("test", 1), threading.Event(), []
        try:
            first = asyncio.ensure_future(workers.run(gate.wait, 10, owner=1))
            await asyncio.sleep(0)
            second = asyncio.ensure_future(workers.run(lambda: ran.append(1), 10, owner=1))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.sleep(0)
        finally:
            gate.set()
        await first
        assert await workers.run(lambda: "last", 10, owner=1) == "last"
        assert not ran and workers.waiting == 0

    asyncio.run(scene())
