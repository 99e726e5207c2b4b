"""Threads for what may never come back: a file of a workload can lie on a file system that the workload answers for.

A task that takes longer than its time is given up, and its thread with it; another takes the thread's place, up to a limit.
The daemon's end waits for none of them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from killswitch.kernel import scheduling

T = TypeVar("T")
MAX_LOST = 16  # threads that hang before no more are started


class Workers:
    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._running = 0
        self._queued: set[asyncio.Future[None]] = set()  # what no thread has begun yet
        self.lost = 0  # threads that hang
        self.waiting = 0  # tasks that were handed in and are not done

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """What ``work`` returns or raises; TimeoutError when it takes too long from its beginning, or none can begin it."""
        if self.lost >= MAX_LOST:
            raise TimeoutError(f"{self.lost} threads hang")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        began: asyncio.Future[None] = loop.create_future()
        state = {"lost": False}

        def begin() -> None:
            self._queued.discard(began)
            if not began.done():
                began.set_result(None)

        def settle(result: T | None, error: BaseException | None) -> None:
            if state["lost"]:
                self.lost -= 1  # it came back after all
            elif began.cancelled() or began.exception() is not None or done.done():
                return  # nobody waits for it any more
            elif error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def task() -> None:
            try:
                if began.done():  # given up before a thread came to it
                    return
                loop.call_soon_threadsafe(begin)
                try:
                    answer = work(), None
                except BaseException as e:
                    loop.call_soon_threadsafe(settle, None, e)
                else:
                    loop.call_soon_threadsafe(settle, *answer)
            except RuntimeError:
                pass  # the loop has ended, and nobody waits

        self.waiting += 1
        self._queued.add(began)
        try:
            self._tasks.put(task)
            self._staff()
            await began
            await asyncio.wait([done], timeout=seconds)
            if not done.done():
                state["lost"] = True
                self.lost += 1
                self._staff()
                raise TimeoutError(f"not done in {seconds:g} s")
            return done.result()
        finally:
            self.waiting -= 1
            self._queued.discard(began)

    def _staff(self) -> None:
        """Another thread in the place of one that hangs, also for who waits already; none of them can begin past the limit."""
        if self.lost >= MAX_LOST:
            for began in self._queued:
                if not began.done():
                    began.set_exception(TimeoutError(f"{self.lost} threads hang"))
        elif self._queued and self._running - self.lost < self._count:
            self._running += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._running}", daemon=True).start()

    def _serve(self) -> None:
        scheduling.stand_back()
        while True:
            self._tasks.get()()
