from __future__ import annotations

import asyncio
import os

from killswitch.daemon import pump as module
from killswitch.daemon.pump import BATCH, Pump
from killswitch.events import Event, Tick


class Rings:
    """A data plane's rings: readable as long as something is in them."""

    def __init__(self, events: int) -> None:
        self.waiting: list[Event] = [Tick(n) for n in range(events)]
        self._read, self._write = os.pipe()
        os.write(self._write, b"x")

    def fileno(self) -> int:
        return self._read

    def drain(self, limit: int) -> list[Event]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        if not self.waiting:
            os.set_blocking(self._read, False)
            try:
                os.read(self._read, 1)
            except BlockingIOError:
                pass  # emptied before
        return taken

    def judged(self, count: int) -> None:
        """Nobody waits for these."""

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


async def pumped(rings: Rings, handle: object, until: int) -> Pump:
    pump = Pump(rings, handle)  # type: ignore[arg-type]
    pump.start()
    try:
        async with asyncio.timeout(10):
            while pump.events < until:
                await asyncio.sleep(0)
    finally:
        pump.stop()
        rings.close()
    return pump


def test_everything_arrives_in_order() -> None:
    seen: list[Event] = []
    asyncio.run(pumped(Rings(BATCH * 5 + 3), seen.append, BATCH * 5 + 3))
    assert [e.time_ns for e in seen] == list(range(BATCH * 5 + 3))


def test_what_is_handed_on_is_said_to_be_judged_and_never_more() -> None:
    rings = Rings(BATCH + 3)
    handled = 0
    said: list[tuple[int, int]] = []

    def handle(event: Event) -> None:
        nonlocal handled
        handled += 1

    rings.judged = lambda count: said.append((count, handled % BATCH or BATCH * bool(count)))  # type: ignore[method-assign]
    asyncio.run(pumped(rings, handle, BATCH + 3))
    assert all(count <= done for count, done in said)
    assert (BATCH, BATCH) in said
    assert said[-1] == (3, 3)
    assert {count for count, _ in said} >= {8, 16, 56}


def test_others_run_between_bites() -> None:
    """With bites of one batch, an order that waits is served long before the flood is over."""
    module_bite, module.BITE_NS = module.BITE_NS, 0
    try:

        async def scenario() -> tuple[int, int]:
            seen: list[Event] = []
            served_at: list[int] = []
            total = BATCH * 50

            def handle(event: Event) -> None:
                seen.append(event)
                if len(seen) == 1:
                    asyncio.get_running_loop().call_soon(lambda: served_at.append(len(seen)))

            await pumped(Rings(total), handle, total)
            return served_at[0], total

        served, total = asyncio.run(scenario())
    finally:
        module.BITE_NS = module_bite
    assert served <= 3 * BATCH < total


def test_one_bad_event_does_not_blind() -> None:
    seen: list[Event] = []

    def handle(event: Event) -> None:
        if event.time_ns == 1:
            raise ValueError("cannot digest this")
        seen.append(event)

    pump = asyncio.run(pumped(Rings(4), handle, 4))
    assert [e.time_ns for e in seen] == [0, 2, 3]
    assert pump.failures == 1


def test_catching_up_reads_all_that_waits() -> None:
    seen: list[Event] = []

    async def main() -> bool:
        rings = Rings(BATCH * 50 + 1)
        pump = Pump(rings, seen.append)
        try:
            return await pump.catch_up(60)
        finally:
            pump.stop()
            rings.close()

    module_bite, module.BITE_NS = module.BITE_NS, 0  # bites of one batch
    try:
        assert asyncio.run(main())
    finally:
        module.BITE_NS = module_bite
    assert [e.time_ns for e in seen] == list(range(BATCH * 50 + 1))


def test_catching_up_with_a_flood_that_has_no_end_gives_up_and_says_so() -> None:
    class Flood(Rings):
        def drain(self, limit: int) -> list[Event]:
            return [Tick(0)] * limit

    async def main() -> tuple[bool, int]:
        rings, served = Flood(0), 0
        pump = Pump(rings, lambda event: None)

        async def other() -> None:
            nonlocal served
            while True:
                served += 1
                await asyncio.sleep(0)

        order = asyncio.create_task(other())
        try:
            return await pump.catch_up(0.05), served
        finally:
            order.cancel()
            pump.stop()
            rings.close()

    done, served = asyncio.run(main())
    assert not done
    assert served > 1


def test_while_it_rests_the_rings_do_not_wake_it() -> None:
    """A full ring is readable all the time; still every bite comes when its rest is over, and nothing is left behind."""
    rests: list[int] = []
    seen: list[Event] = []

    def rest() -> float:
        rests.append(len(seen))
        return 0.001

    async def scene() -> None:
        module_bite, module.BITE_NS = module.BITE_NS, 0
        rings = Rings(BATCH * 5)
        pump = Pump(rings, seen.append, rest)  # type: ignore[arg-type]
        try:
            pump.start()
            async with asyncio.timeout(10):
                while rings.waiting:
                    await asyncio.sleep(0)
        finally:
            module.BITE_NS = module_bite
            pump.stop()
            rings.close()

    asyncio.run(scene())
    assert [e.time_ns for e in seen] == list(range(BATCH * 5))
    assert rests == [BATCH * n for n in range(1, 6)]
