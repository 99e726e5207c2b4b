"""A daemon's service with a scripted state, served by the real control server on real sockets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from killswitch.commands import (
    FREE,
    Act,
    Containment,
    Evidence,
    Finding,
    Level,
    Mode,
    Outcome,
    Receipt,
    Response,
    Step,
)
from killswitch.control.server import ControlServer
from killswitch.control.service import (
    CapabilityInfo,
    EventFilter,
    Health,
    IncidentInfo,
    Order,
    OrderResult,
    PolicyInfo,
    Proof,
    Status,
    StreamItem,
    WorkloadInfo,
)
from killswitch.errors import Problem, TargetError
from killswitch.events import Connect, Done, Event, Exec, Transport

SEVERED_FROZEN = Containment(severed=True, frozen=True)
HOSTILE = (
    b"/tmp/\x1b]0;owned\x07\x1b[31mx\xff\xe2\x80\xae"  # retitles the window, goes red, not UTF-8, writes right to left
)


def workload(name: str = "agent-1", **given: object) -> WorkloadInfo:
    facts: dict[str, object] = {
        "id": 4711, "name": name, "cgroup": f"/killswitch/{name}", "policies": ("rogue-agent",), "desired": FREE,
        "observed": FREE, "processes": 3, "since_unix": time.time() - 7300, "incident": "", "tx_packets": 12345,
        "rx_packets": 54321, "dropped_packets": 0, "lost_events": 0,
        "path": f"/sys/fs/cgroup/killswitch/{name}",
    }  # fmt: skip
    return WorkloadInfo(**(facts | given))  # type: ignore[arg-type]


def exec_event(executable: bytes = b"/tmp/xmrig", argv: bytes = b"xmrig\0-o\0pool:3333\0", **given: object) -> Exec:
    facts: dict[str, object] = {
        "time_ns": time.monotonic_ns(), "workload": 4711, "cgroup_id": 4711, "pid": 4242, "start_ticks": 99, "ppid": 1,
        "parent_start_ticks": 1, "uid": 1000, "gid": 1000, "parent_name": b"bash", "executable": executable,
        "filename": executable, "argv": argv, "argv_total": len(argv), "inode": 7, "device": 8, "nlink": 1,
        "memfd": False, "predicates": 1 << 200, "generation": 1, "clause": 0, "done": Done.KILLED, "verdict_ns": 900,
    }  # fmt: skip
    return Exec(**(facts | given))  # type: ignore[arg-type]


def finding(event: Event | None = None, summary: str = "bash (pid 4242) executed /tmp/xmrig") -> Finding:
    return Finding(
        time_ns=1_000_000_000, workload=4711, policy="rogue-agent", rule="miner-binary", title="Known miner executed",
        level=Level.CRITICAL, mode=Mode.ENFORCE, responses=(Response.KILL_PROCESS, Response.SEVER, Response.FREEZE),
        done_in_kernel=(Response.KILL_PROCESS, Response.SEVER), pid=4242, start_ticks=99, summary=summary,
        event=event or exec_event(), verdict_ns=900, act=Act.MINING, evidence=Evidence.NAME,
    )  # fmt: skip


def receipts(*, failed: Step | None = None, base: int = 1_000_050_000) -> tuple[Receipt, ...]:
    proofs: list[tuple[Step, dict[str, str | int | float]]] = [
        (Step.SEVER, {"map": "severed", "tx_after": 0}),
        (Step.FREEZE, {"frozen": 1, "cpu_usec_before": 18223, "cpu_usec_after": 18223}),
        (Step.DESTROY_SOCKETS, {"tcp": 4, "udp": 1}),
        (
            Step.CAPTURE,
            {"processes": 3, "files": 6, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15"},
        ),
    ]
    out = []
    for n, (step, proof) in enumerate(proofs):
        at = base + n * 1_500_000
        if step is failed:
            out.append(
                Receipt(step, Outcome.FAILED, 4711, at, at + 900_000, error="cgroup.events: still frozen 0 after 2 s")
            )
        else:
            out.append(Receipt(step, Outcome.DONE, 4711, at, at + 900_000, proof))
    return tuple(out)


def incident(**given: object) -> IncidentInfo:
    facts: dict[str, object] = {
        "id": "inc-3", "workload": 4711, "workload_name": "agent-1", "cgroup": "/killswitch/agent-1",
        "opened_unix": time.time() - 3700, "closed_unix": 0.0, "reason": "miner-binary: Known miner executed",
        "level": "critical", "containment": SEVERED_FROZEN, "findings": (finding(),), "receipts": receipts(),
        "evidence": "/var/lib/killswitch/evidence/inc-3",
    }  # fmt: skip
    return IncidentInfo(**(facts | given))  # type: ignore[arg-type]


SILENT = Receipt(Step.SILENCE, Outcome.DONE, 4711, 1_002_000_000, 1_302_000_000, {"tcp": 0, "udp": 0})


class House:
    """Implements ``control.service.Service``. What it says is in public attributes; what it was told is in ``told``."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Order, dict[str, object]]] = []
        self.error: Exception | None = None
        self.delay = 0.0
        self.watched: list[WorkloadInfo] = [workload()]
        self.known: list[IncidentInfo] = [incident()]
        self.result: OrderResult | None = None
        self.files: list[tuple[str, bytes]] = [
            ("tree.txt", b"1 init\n"),
            ("sockets.json", b"[]"),
            ("tree.txt", b"2 x\n"),
        ]
        self.items: list[StreamItem] = []
        self.parts: tuple[Health, ...] = (Health("ring", True, "0 lost"), Health("ledger", True, "47 rows"))
        self.audit = (True, "112 lines")
        self.problems: list[Problem] = []
        self.proof = Proof()
        self.watching: WorkloadInfo | None = None  # what watch() answers

    async def _answer(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.error:
            raise self.error

    async def _order(self, kind: str, order: Order, **more: object) -> OrderResult:
        self.told.append((kind, order, more))
        await self._answer()
        state = FREE if kind in ("thaw", "release") else SEVERED_FROZEN
        found = next((w for w in self.watched if order.target in (w.name, w.cgroup, str(w.id))), None)
        if found is None:
            raise TargetError(f"target {order.target!r}: no workload has this name or id; nothing is watched")
        done = workload(found.name, desired=state, observed=state)
        return self.result or OrderResult("ord-1", done, "inc-3", receipts(), True)

    async def kill(self, order: Order, *, terminate: bool) -> OrderResult:
        return await self._order("kill", order, terminate=terminate)

    async def sever(self, order: Order) -> OrderResult:
        return await self._order("sever", order)

    async def freeze(self, order: Order) -> OrderResult:
        return await self._order("freeze", order)

    async def thaw(self, order: Order) -> OrderResult:
        return await self._order("thaw", order)

    async def terminate(self, order: Order) -> OrderResult:
        return await self._order("terminate", order)

    async def release(self, order: Order, *, stage: str) -> OrderResult:
        return await self._order("release", order, stage=stage)

    async def watch(self, order: Order, *, name: str, create: bool = False) -> WorkloadInfo:
        self.told.append(("watch", order, {"name": name, "create": create}))
        await self._answer()
        return self.watching or workload(name or "x", cgroup=order.target)

    async def unwatch(self, order: Order, *, remove: bool = False) -> WorkloadInfo:
        self.told.append(("unwatch", order, {"remove": remove}))
        await self._answer()
        found = next((w for w in self.watched if order.target in (w.name, str(w.id))), None)
        if found and (found.desired != FREE or found.observed != FREE):
            raise TargetError(f"workload {found.name}: is {found.observed}; release it first")
        if found and remove and found.processes:
            raise TargetError(f"workload {found.name}: its cgroup still has processes; end them, or do not remove it")
        return found or workload(order.target)

    async def status(self) -> Status:
        await self._answer()
        return Status(
            "0.1.0", 812, time.time() - 7300, 412.0, True, ("rogue-agent",), len(self.watched), 1, 1, 1234567,
            {"ring_full": 12, "exec_argv": 0}, 61 << 20, self.parts, self.proof,
        )  # fmt: skip

    async def workloads(self) -> Sequence[WorkloadInfo]:
        await self._answer()
        return self.watched

    async def incidents(self, *, open_only: bool, limit: int) -> Sequence[IncidentInfo]:
        await self._answer()
        return [i for i in self.known if not (open_only and i.closed_unix)][:limit]

    async def incident(self, incident: str) -> IncidentInfo:
        await self._answer()
        for known in self.known:
            if known.id == incident:
                return known
        raise TargetError(f"incident {incident!r}: there is none; killswitch incidents lists them")

    async def evidence(self, incident: str) -> AsyncIterator[tuple[str, bytes]]:
        await self._answer()
        for item in self.files:
            yield item

    async def stream(self, wanted: EventFilter) -> AsyncIterator[StreamItem]:
        for item in self.items:
            if not wanted.workload or wanted.workload == item.workload_name:
                yield item

    async def capabilities(self) -> Sequence[CapabilityInfo]:
        await self._answer()
        return [
            CapabilityInfo("exec_kill", "1 First instruction", True, ""),
            CapabilityInfo("cgroup_freeze", "4 Frozen is frozen", True, ""),
            CapabilityInfo(
                "lsm", "1 First instruction", False, "BPF_PROG_LOAD: this kernel was built without CONFIG_BPF_LSM"
            ),
        ]

    async def policies(self) -> Sequence[PolicyInfo]:
        await self._answer()
        rules = (
            {"id": "miner-binary", "title": "Known miner executed", "level": "critical", "on": "exec", "tier": "1",
             "why": "", "response": "kill_process, sever, freeze, capture"},
            {"id": "sustained-hashing", "title": "Sustained hashing load", "level": "high", "on": "cpu", "tier": "4",
             "why": "'for:' looks at more than one event", "response": "sever, freeze, capture"},
        )  # fmt: skip
        file = "/etc/killswitch/policies/rogue-agent.yaml"
        return [PolicyInfo("rogue-agent", 1, "enforce", file, ("/killswitch/**",), rules)]

    async def check_policy(self, text: str, file: str) -> Sequence[Problem]:
        await self._answer()
        return self.problems

    async def forget(self, order: Order) -> str:
        self.told.append(("forget", order, {}))
        await self._answer()
        return f"forgot {order.target}"

    async def reload_policies(self, order: Order) -> Sequence[PolicyInfo]:
        self.told.append(("reload", order, {}))
        return await self.policies()

    async def self_test(self, order: Order) -> OrderResult:
        self.told.append(("self_test", order, {}))
        await self._answer()
        return self.result or OrderResult("ord-1", workload("self-test"), "", (*receipts(), SILENT), True)

    async def verify_log(self) -> tuple[bool, str]:
        await self._answer()
        return self.audit


def connect_event() -> Connect:
    return Connect(
        time.monotonic_ns(),
        4711,
        4711,
        4242,
        99,
        1000,
        b"ssh\x1b[1m",
        Transport.TCP,
        "2001:db8::1",
        22,
        "connect",
        True,
    )


class Served:
    """Serves a House from a thread of its own."""

    def __init__(self, house: House, runtime: Path) -> None:
        self.house, self.runtime = house, runtime
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: ControlServer = self._run(self._start())

    def _run(self, coroutine: object) -> ControlServer:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)  # type: ignore[arg-type]

    async def _start(self) -> ControlServer:
        server = ControlServer(
            self.house, admin=self.runtime / "admin.sock", view=self.runtime / "view.sock", group="root"
        )
        await server.start()
        return server

    def stop(self) -> None:
        self._run(self._server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
