"""A bounded queue between who produces and a reader that may lag: the oldest goes first, and the reader is told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from killswitch.control.service import StreamItem

DEPTH = 4096  # items


class Lagging:
    """``put`` never blocks. Iteration ends after ``close``, once what is queued has been read."""

    def __init__(self, depth: int = DEPTH) -> None:
        self._items: deque[StreamItem] = deque()
        self._depth = depth
        self._missed = 0  # just before what is now the oldest item
        self._wake = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: StreamItem) -> None:
        if len(self._items) >= self._depth:
            oldest = self._items.popleft()
            self._missed += 1 + oldest.dropped
        self._items.append(item)
        self._wake.set()

    def close(self, error: BaseException | None = None) -> None:
        """End the iteration; it raises ``error`` when there is one."""
        self._closed, self._error = True, error
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[StreamItem]:
        while True:
            if self._items:
                item = self._items.popleft()
                if self._missed:
                    item = replace(item, dropped=item.dropped + self._missed)
                    self._missed = 0
                yield item
            elif self._closed:
                if self._error is not None:
                    raise self._error
                return
            else:
                self._wake.clear()
                await self._wake.wait()
