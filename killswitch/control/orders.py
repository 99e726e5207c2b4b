"""Orders are carried out once, and to their end: a caller that goes away, or asks again, changes nothing.

Each order runs in a task of its own, which no call owns. The same ``request_id`` joins the order that runs, or gets the
answer that it gave, also when that was a daemon before this one (``Remembered``). An order that *failed* is forgotten:
who repeats it means to try again, and a kill must not be answered from memory with an error.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from killswitch.errors import RequestError

T = TypeVar("T")
REMEMBERED = 1024  # finished orders whose answers are kept


class AlreadyUsed(RequestError):
    """The ``request_id`` was used for an order of other content."""

    @classmethod
    def by(cls, request_id: str) -> AlreadyUsed:
        return cls(f"request_id {request_id!r} was used for another order; take a new id for a new order")


@dataclass(frozen=True, slots=True)
class _Entry:
    content: bytes
    task: asyncio.Task[object]


class Orders:
    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def once(self, request_id: str, content: bytes, carry_out: Callable[[], Awaitable[T]]) -> T:
        """The answer of ``carry_out``, called once for each ``request_id``; its error when it raised.

        Cancelling the call leaves the order running. Raises AlreadyUsed when the id came with other ``content`` before.
        """
        entry = self._entries.get(request_id)
        if entry is None:
            task = asyncio.ensure_future(_as_coroutine(carry_out))
            entry = self._entries[request_id] = _Entry(content, cast("asyncio.Task[object]", task))
            task.add_done_callback(lambda done: self._finished(request_id, cast("asyncio.Task[object]", done)))
        elif entry.content != content:
            raise AlreadyUsed.by(request_id)
        return cast("T", await asyncio.shield(entry.task))

    def _finished(self, request_id: str, task: asyncio.Task[object]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._entries[request_id]
            return
        self._entries.move_to_end(request_id)
        finished = [key for key, entry in self._entries.items() if entry.task.done()]
        for key in finished[: max(0, len(finished) - self._remembered)]:
            del self._entries[key]

    @property
    def running(self) -> int:
        return sum(not entry.task.done() for entry in self._entries.values())

    async def finish(self, timeout: float) -> int:
        """Wait for what runs, at most ``timeout`` seconds. Returns how many orders still run."""
        running = [entry.task for entry in self._entries.values() if not entry.task.done()]
        if running:
            await asyncio.wait(running, timeout=timeout)
        return sum(not task.done() for task in running)


async def _as_coroutine(carry_out: Callable[[], Awaitable[T]]) -> T:
    return await carry_out()
