"""Who waits for whom: the orders of one workload share a lane; workloads do not know of each other."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable

from killswitch.commands import FREE, Containment, Receipt
from killswitch.contain.model import OnReceipt, WorkloadRef

log = logging.getLogger("killswitch.contain")

STRETCH_S, BREATH_S = 0.002, 0.005  # what is done in one go, and how long a rest may be


class Order:
    """One order on its way. ``contained`` is set when it is as contained as it will be before evidence is captured."""

    def __init__(
        self, number: int, lane: Lane, workload: WorkloadRef, desired: Containment, on_receipt: OnReceipt
    ) -> None:
        self.number, self.lane, self.workload, self.desired = number, lane, workload, desired
        self.receipts: list[Receipt] = []
        self.contained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self._on_receipt = on_receipt

    def add(self, receipt: Receipt) -> None:
        """Keep the receipt and pass it on; what goes wrong with who gets it must not delay the kill."""
        self.receipts.append(receipt)
        try:
            self._on_receipt(receipt)
        except Exception:
            log.exception("a receipt was not taken: %s of workload %d", receipt.step, receipt.workload)

    def settle(self) -> None:
        if not self.contained.done():
            self.contained.set_result(None)


class Lane:
    """The orders of one workload, in the order in which they came."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # fair: who came first goes first
        self.orders: dict[int, Order] = {}  # those under way
        self._desired: dict[int, Containment] = {}

    def later(self, order: Order) -> Containment:
        """What orders that came after this one desire, together: those that are done too, for they went ahead while this
        one waited for those before it."""
        wanted = FREE
        for number, desired in self._desired.items():
            if number > order.number:
                wanted |= desired
        return wanted

    def admit(self, order: Order) -> None:
        self.orders[order.number] = order
        self._desired[order.number] = order.desired

    def done(self, order: Order) -> None:
        """The order is done; what was desired before the oldest that is not is forgotten."""
        del self.orders[order.number]
        oldest = min(self.orders, default=order.number)
        self._desired = {n: d for n, d in self._desired.items() if n >= oldest}

    async def earlier(self, order: Order) -> None:
        """Wait until every order that came before this one is done, its captures included."""
        tasks = [o.task for o in self.orders.values() if o.number < order.number and o.task]
        if tasks:
            await asyncio.wait(tasks)


class Lanes:
    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}
        self._numbers = itertools.count(1)
        self.releases = 0  # steps of releases that were begun, ever
        self.urgent = 0  # orders that are not as contained yet as they are to be
        self._calm = threading.Event()
        self._calm.set()

    def open(self, workload: WorkloadRef, desired: Containment, on_receipt: OnReceipt) -> Order:
        lane = self._lanes.setdefault(workload.id, Lane())
        order = Order(next(self._numbers), lane, workload, desired, on_receipt)
        lane.admit(order)
        return order

    def hurry(self, order: Order) -> None:
        """What can wait waits, from now until this order is contained."""
        self.urgent += 1
        self._calm.clear()
        order.contained.add_done_callback(self._calmed)

    def _calmed(self, _: asyncio.Future[None]) -> None:
        self.urgent -= 1
        if not self.urgent:
            self._calm.set()

    def pacer(self) -> Callable[[], None]:
        """To be called again and again by a thread that has much to do: it rests half as long as it has worked, for it
        comes before all other processes of the host, and longer while an order is urgent, though not without end."""
        since = time.monotonic()

        def breathe() -> None:
            nonlocal since
            worked = time.monotonic() - since
            if worked < STRETCH_S and not self.urgent:
                return
            time.sleep(min(worked / 2, BREATH_S))
            self._calm.wait(BREATH_S)
            since = time.monotonic()

        return breathe

    def close(self, order: Order) -> None:
        order.lane.done(order)
        if not order.lane.orders:
            self._lanes.pop(order.workload.id, None)

    def busy(self, cgroup: int) -> bool:
        return cgroup in self._lanes

    async def idle(self) -> None:
        """Wait until no order is under way."""
        while tasks := [o.task for lane in self._lanes.values() for o in lane.orders.values() if o.task]:
            await asyncio.wait(tasks)
