from __future__ import annotations

import asyncio
from pathlib import Path

from killswitch.commands import Containment
from killswitch.contain.lanes import Lanes, Order
from killswitch.contain.model import WorkloadRef


def opened(lanes: Lanes, workload: int) -> Order:
    order = lanes.open(WorkloadRef(workload, Path("/x"), "x"), Containment(True, True), lambda _: None)
    lanes.hurry(order)
    return order


def test_it_is_urgent_until_the_last_order_is_contained() -> None:
    async def scene() -> list[int]:
        lanes = Lanes()
        first, second = opened(lanes, 1), opened(lanes, 2)
        seen = [lanes.urgent]
        for order in (first, second):
            order.settle()
            order.settle()  # once counts
            await asyncio.sleep(0)
            seen.append(lanes.urgent)
        return seen

    assert asyncio.run(scene()) == [2, 1, 0]


def test_who_paces_itself_goes_on_at_last_although_orders_never_end() -> None:
    async def scene() -> int:
        lanes = Lanes()
        opened(lanes, 1)
        breathe = lanes.pacer()
        for _ in range(5):
            await asyncio.to_thread(breathe)
        return lanes.urgent

    assert asyncio.run(scene()) == 1
