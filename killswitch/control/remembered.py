"""Orders of daemons before this one: who asks again gets the answer that was given, and nothing is done a second time.

An order whose daemon ended before it answered is another matter. To cut off once more does no harm, so that is carried
out, to its end. To let go of something once more might undo what has been done since: that is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from killswitch.control.orders import AlreadyUsed
from killswitch.errors import KillswitchError
from killswitch.v1 import killswitch_service_pb2 as pb

LETS_GO = frozenset({"Release", "Thaw", "UnwatchWorkload"})


class Interrupted(KillswitchError):
    """The daemon ended while it carried this order out, and it is none that may simply be carried out again."""


@dataclass(frozen=True, slots=True)
class Given:
    """What became of an order."""

    content: str  # digest of the order, "" = not known
    answer: bytes | None  # the response message; None: the daemon ended before it answered


class Memory(Protocol):
    """What outlives the daemon."""

    async def recall(self, request_id: str) -> Given | None:
        """None when no daemon before this one had such an order, or when it failed. At once when the id is new: a kill
        waits for this."""

    async def keep(self, request_id: str, given: Given) -> None:
        """Never fails; comes back when it is kept, or when that takes too long."""


class Remembered:
    """``memory`` None: nothing outlives the daemon."""

    def __init__(self, memory: Memory | None) -> None:
        self._memory = memory

    async def once(self, method: str, request: Any, carry_out: Callable[[], Awaitable[Any]]) -> Any:
        """The response of ``carry_out``, or the one that an earlier daemon gave to the same order.

        Raises AlreadyUsed when the request_id came with other content before, and Interrupted.
        """
        memory, request_id = self._memory, request.request_id
        if memory is None:
            return await carry_out()
        content = hashlib.sha256(method.encode() + b"\0" + request.SerializeToString(deterministic=True)).hexdigest()
        if given := await memory.recall(request_id):
            if given.content and given.content != content:
                raise AlreadyUsed.by(request_id)
            if given.answer is not None:
                return getattr(pb, f"{method}Response").FromString(given.answer)
            if method in LETS_GO:
                raise Interrupted(
                    f"request_id {request_id!r}: the daemon ended while it carried this order out; look at "
                    "killswitch workloads, and order anew, with a new id, what is still to be done"
                )
        response = await carry_out()
        await memory.keep(request_id, Given(content, response.SerializeToString()))
        return response
