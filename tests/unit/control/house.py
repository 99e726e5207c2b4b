"""A small daemon of its own for the control plane's tests: workloads whose containment orders really change, a stream, and
gates with which a test holds an order or a reader at a chosen point."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from killswitch.commands import FREE, Containment, Outcome, Receipt, Step
from killswitch.control.server import ControlServer
from killswitch.control.service import (
    CapabilityInfo,
    EventFilter,
    Health,
    IncidentInfo,
    Order,
    OrderResult,
    PolicyInfo,
    Status,
    StreamItem,
    WorkloadInfo,
)
from killswitch.errors import NotSupported, PolicyError, Problem, Protected, TargetError
from killswitch.events import Fork

T = TypeVar("T")


def workload(name: str, number: int) -> WorkloadInfo:
    return WorkloadInfo(
        number, name, f"/killswitch/{name}", ("rogue-agent",), FREE, FREE, 2, 1.7e9, "", 5, 6, 0, 0, f"/cg/{name}"
    )


class House:
    def __init__(self) -> None:
        self.workloads_by_name = {name: workload(name, n) for n, name in enumerate(("one", "two", "\udcff"), 1)}
        self.orders: list[tuple[str, Order]] = []
        self.finished: list[str] = []
        self.hold = asyncio.Event()  # orders wait for it
        self.hold.set()
        self.begun = threading.Event()
        self.health = [Health("ring", True, ""), Health("ledger", True, "")]
        self.readers: list[asyncio.Queue[StreamItem]] = []
        self.files = {"tree.json": b"{}", "maps": b"m" * 600_000, "empty": b""}
        self.log_is_whole = (True, "3 entries")

    async def _carry_out(self, verb: str, order: Order, **to: bool) -> OrderResult:
        self.orders.append((verb, order))
        self.begun.set()
        await self.hold.wait()
        self.finished.append(verb)
        if order.target == "pid:1":
            raise Protected("pid 1: is protected; name another target")
        if order.target == "bug":
            raise ZeroDivisionError("secret detail")
        if order.target == "cannot":
            raise NotSupported("terminate of 'cannot'", 95, "cgroup.kill came with Linux 5.14")
        if order.target not in self.workloads_by_name:
            raise TargetError(f"target {order.target!r}: no such workload; killswitch workloads lists them")
        old = self.workloads_by_name[order.target]
        desired = dataclasses.replace(old.desired, **to)
        new = dataclasses.replace(old, desired=desired, observed=desired, incident="inc-1")
        self.workloads_by_name[order.target] = new
        receipt = Receipt(Step.SEVER, Outcome.DONE, new.id, 10, 20, {"dropped": 3, "how": "map"})
        return OrderResult(f"ord-{len(self.orders)}", new, "inc-1", (receipt,), True)

    async def kill(self, order: Order, *, terminate: bool) -> OrderResult:
        return await self._carry_out("kill", order, severed=True, frozen=True, terminated=terminate)

    async def sever(self, order: Order) -> OrderResult:
        return await self._carry_out("sever", order, severed=True)

    async def freeze(self, order: Order) -> OrderResult:
        return await self._carry_out("freeze", order, frozen=True)

    async def thaw(self, order: Order) -> OrderResult:
        return await self._carry_out("thaw", order, frozen=False)

    async def terminate(self, order: Order) -> OrderResult:
        return await self._carry_out("terminate", order, terminated=True)

    async def release(self, order: Order, *, stage: str) -> OrderResult:
        to = {"thaw": {"frozen": False}, "network": {"severed": False}, "all": {"severed": False, "frozen": False}}
        return await self._carry_out(f"release {stage}", order, **to[stage])

    async def watch(self, order: Order, *, name: str, create: bool = False) -> WorkloadInfo:
        self.orders.append((f"watch create={create}", order))
        added = dataclasses.replace(workload(name or order.target.rpartition("/")[2], 9), cgroup=order.target)
        self.workloads_by_name[added.name] = added
        return added

    async def unwatch(self, order: Order, *, remove: bool = False) -> WorkloadInfo:
        self.orders.append((f"unwatch remove={remove}", order))
        return self.workloads_by_name.pop(order.target)

    async def status(self) -> Status:
        n = len(self.workloads_by_name)
        return Status("0.1", 7, 1.7e9, 431.25, True, ("p",), n, 0, 0, 12, {"ring full": 4}, 1 << 26, tuple(self.health))

    async def workloads(self) -> Sequence[WorkloadInfo]:
        await self.hold.wait()
        return list(self.workloads_by_name.values())

    async def incidents(self, *, open_only: bool, limit: int) -> Sequence[IncidentInfo]:
        found = [await self.incident("inc-2"), await self.incident("inc-1")]
        return [i for i in found if not (open_only and i.closed_unix)][: limit or None]

    async def incident(self, incident: str) -> IncidentInfo:
        if incident not in ("inc-1", "inc-2"):
            raise TargetError(f"incident {incident!r}: no such incident; killswitch incidents lists them")
        closed = 1.8e9 if incident == "inc-1" else 0.0
        return IncidentInfo(
            incident, 1, "one", "/killswitch/one", 1.7e9, closed, "r", "high", Containment(True), (), (), ""
        )

    async def evidence(self, incident: str) -> AsyncIterator[tuple[str, bytes]]:
        await self.incident(incident)
        for name, content in self.files.items():
            yield name, content

    async def stream(self, wanted: EventFilter) -> AsyncIterator[StreamItem]:
        if wanted.workload and wanted.workload not in self.workloads_by_name:
            raise TargetError(f"target {wanted.workload!r}: no such workload")
        queue: asyncio.Queue[StreamItem] = asyncio.Queue()
        self.readers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.readers.remove(queue)

    def publish(self, count: int) -> None:
        for n in range(count):
            for queue in self.readers:
                queue.put_nowait(StreamItem(event=Fork(n, 1, 1, 100 + n, 5, 1, 1), workload_name="one"))

    async def capabilities(self) -> Sequence[CapabilityInfo]:
        return [CapabilityInfo("lsm", "first instruction", False, "bpf LSM is not built in")]

    async def policies(self) -> Sequence[PolicyInfo]:
        rule = {"id": "miner-binary", "level": "critical", "tier": "1", "for": "20s"}
        return [PolicyInfo("rogue-agent", 1, "enforce", "/p.yaml", ("/killswitch/**",), (rule,))]

    async def check_policy(self, text: str, file: str) -> Sequence[Problem]:
        return [Problem(file, 3, 7, f"bad: {text[:5]}", "good")] if "bad" in text else []

    async def forget(self, order: Order) -> str:
        if order.target == "nothing":
            raise TargetError("forget 'nothing': no program of it")
        return f"forgot {order.target}"

    async def reload_policies(self, order: Order) -> Sequence[PolicyInfo]:
        if "broken" in order.reason:
            raise PolicyError([Problem("/etc/p.yaml", n, 1, "no such field 'nmae'", "name?") for n in range(1, 400)])
        return await self.policies()

    async def self_test(self, order: Order) -> OrderResult:
        return await self._carry_out("self_test", dataclasses.replace(order, target="one"), severed=True)

    async def verify_log(self) -> tuple[bool, str]:
        return self.log_is_whole


class Running:
    """A server in a thread of its own, as the daemon is a process of its own."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.admin, self.view = directory / "admin.sock", directory / "view.sock"
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._options = options

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def do(self, act: Callable[[], T]) -> T:
        async def in_loop() -> T:
            return act()

        return self.call(in_loop())

    def start(self) -> None:
        async def begin() -> None:
            self.house = House()
            self.server = ControlServer(self.house, admin=self.admin, view=self.view, **self._options)
            await self.server.start()

        self.call(begin())

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        self.loop.close()


@contextlib.contextmanager
def running(directory: Path, **options: Any) -> Iterator[Running]:
    r = Running(directory, **options)
    try:
        r.start()
        yield r
        r.do(r.house.hold.set)
        r.call(r.server.stop(1))
    finally:
        r.end()
