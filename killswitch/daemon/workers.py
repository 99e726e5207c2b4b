"""Threads for what may never come back: a file of a workload can lie on a file system that the workload answers for.

A task that takes longer than its time is given up, and its thread with it. Whose it was (``owner``: a workload) may lose so many
threads and is then refused; the others go on, for they have turns and threads of their own: an owner has at most ``count``
tasks under way, and a task that takes long makes room for another owner's. The daemon's end waits for none of them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any, TypeVar

from killswitch.kernel import scheduling

T = TypeVar("T")
MAX_LOST = 8  # threads of one owner that hang, before no more are started for it
MAX_THREADS = 64  # of one kind, for all owners
PATIENCE = 0.05  # seconds after which a task no longer keeps others waiting


class _Task:
    __slots__ = ("began", "done", "lost", "owner", "slow", "work")

    def __init__(self, owner: int, work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.owner, self.work = owner, work
        self.began: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[Any] = loop.create_future()
        self.lost = self.slow = False


class Workers:
    """All but the threads themselves is touched by the event loop's thread alone."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._queued: OrderedDict[int, deque[_Task]] = OrderedDict()  # by owner, whose turn is next first
        self._active: set[_Task] = set()
        self._ready: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, _Task]] = queue.SimpleQueue()
        self._threads = 0
        self._lost: Counter[int] = Counter()  # threads that hang, by owner
        self.waiting = 0  # tasks that were handed in and are not done

    @property
    def lost(self) -> int:
        """Threads that hang."""
        return self._lost.total()

    async def run(self, work: Callable[[], T], seconds: float, owner: int = 0) -> T:
        """What ``work`` returns or raises; TimeoutError when it takes too long from its beginning, or none can begin it."""
        if refusal := self._refusal(owner):
            raise refusal
        task = _Task(owner, work, asyncio.get_running_loop())
        self._queued.setdefault(owner, deque()).append(task)
        self.waiting += 1
        try:
            self._dispatch()
            await task.began
            await asyncio.wait([task.done], timeout=seconds)
            if not task.done.done():
                task.lost = True
                self._active.discard(task)
                self._lost[owner] += 1
                self._dispatch()
                raise TimeoutError(f"not done in {seconds:g} s")
            found: T = task.done.result()
            return found
        finally:
            self.waiting -= 1
            if not task.began.done() or task.began.cancelled():
                self._forget(task)

    def waiting_for(self, owner: int) -> int:
        """Tasks of this owner that nobody has begun yet."""
        return len(self._queued.get(owner, ()))

    def _refusal(self, owner: int) -> TimeoutError | None:
        if self._lost[owner] >= MAX_LOST:
            return TimeoutError(f"{self._lost[owner]} threads hang that read for the same workload")
        if self.lost >= MAX_THREADS:
            return TimeoutError(f"{self.lost} threads hang")
        return None

    def _forget(self, task: _Task) -> None:
        waiting = self._queued.get(task.owner)
        if waiting and task in waiting:
            waiting.remove(task)
            if not waiting:
                del self._queued[task.owner]

    def _dispatch(self) -> None:
        """Hand out what can begin, and refuse what never can."""
        for owner in list(self._queued):
            if refusal := self._refusal(owner):
                for refused in self._queued.pop(owner):
                    if not refused.began.done():
                        refused.began.set_exception(refusal)
        while (ready := self._next()) is not None:
            task = ready
            self._active.add(task)
            task.began.set_result(None)
            loop = task.began.get_loop()
            loop.call_later(PATIENCE, self._lose_patience, task)
            if self._threads < len(self._active) + self.lost:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()
            self._ready.put((loop, task))

    def _next(self) -> _Task | None:
        if sum(not t.slow for t in self._active) >= self._count or len(self._active) + self.lost >= MAX_THREADS:
            return None
        busy = Counter(t.owner for t in self._active)
        for owner, waiting in self._queued.items():
            if busy[owner] < self._count:
                task = waiting.popleft()
                if waiting:
                    self._queued.move_to_end(owner)
                else:
                    del self._queued[owner]
                return task if not task.began.done() else self._next()  # it was cancelled
        return None

    def _lose_patience(self, task: _Task) -> None:
        if task in self._active:
            task.slow = True
            self._dispatch()

    def _settle(self, task: _Task, result: object, error: BaseException | None) -> None:
        self._active.discard(task)
        if task.lost:
            self._lost[task.owner] -= 1  # it came back after all
            if not self._lost[task.owner]:
                del self._lost[task.owner]
        elif not task.done.done():
            if error is not None:
                task.done.set_exception(error)
            else:
                task.done.set_result(result)
        self._dispatch()

    def _serve(self) -> None:
        scheduling.stand_back()
        while True:
            loop, task = self._ready.get()
            result: object = None
            failed: BaseException | None = None
            try:
                result = task.work()
            except BaseException as e:
                failed = e
            try:
                loop.call_soon_threadsafe(self._settle, task, result, failed)
            except RuntimeError:
                pass  # the loop has ended, and nobody waits
            del loop, task, result, failed
