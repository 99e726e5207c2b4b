"""The self-test: a canary workload of our own is watched, judged, severed, frozen, thawed and released, and each is seen.

What is believed is what is seen from outside of the canary (what comes from it, what it can be reached by, its CPU time in
the kernel's account) and the kernel's own events. It is cut off by the same transaction as everybody, but it is no workload
of the operators: it has no incident, is in no list, and nobody else can contain it. ``canary`` is the program, ``farend``
the other end of its network, ``proofpolicy`` its rules.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from killswitch.commands import FREE, Containment, Outcome, Receipt, Step
from killswitch.contain import steps
from killswitch.contain.model import WorkloadRef
from killswitch.daemon import canary as program
from killswitch.daemon import proofpolicy
from killswitch.daemon.core import Core
from killswitch.daemon.farend import FarEnd
from killswitch.daemon.workloads import Workload
from killswitch.errors import Gone, KernelError, KillswitchError
from killswitch.events import Done, Event, Exec, Wire
from killswitch.kernel import cgroupfs, scheduling
from killswitch.kernel.abi import HoldMode

log = logging.getLogger("killswitch.selftest")

NAME = "self-test"  # what the canary is called where its receipts are followed
BEGIN = 30.0  # seconds that the canary may take to begin: its host may be slow, or crowded
SECONDS = 10.0  # that anything else is waited for that should happen at once
HELD = 0.1  # seconds that it is held, and listened to
SILENCE = 0.3  # seconds that a silence is listened to; the canary speaks every 4 ms, each way

Proof = dict[str, str | int | float]


class NotProven(KillswitchError):
    """A step did not show what it has to; with what was seen instead."""

    def __init__(self, message: str, seen: Mapping[str, str | int | float] | None = None) -> None:
        super().__init__(message)
        self.seen = dict(seen or {})


class NotOffered(NotProven):
    """It could not be tried."""


def sweep(core: Core) -> None:
    """Take away what a daemon that ended in the middle of a self-test has left."""
    for number in core.plane.workloads():
        try:
            path = cgroupfs.path_of(number)
        except Gone:
            continue
        if core.is_canary("/" + str(path.relative_to(core.mount))):
            core.plane.unwatch(number)
    parent = core.path_of(core.config.cgroup_parent)
    for path in parent.parent.glob(f"{parent.name}.proof-*"):
        if core.is_canary("/" + str(path.relative_to(core.mount))):
            log.warning("an unfinished self-test is cleared away: %s", path)
            _clear(path)


def _clear(path: Path) -> None:
    try:
        cgroupfs.kill(path)
        cgroupfs.remove(path)
    except Gone:
        pass
    except KernelError as e:
        log.error("self-test: %s", e)


async def run(core: Core, publish: Callable[[Receipt], None] = lambda _: None) -> tuple[Workload, list[Receipt]]:
    """(the canary's workload, as it was; the receipts). Those of outcome FAILED say what was not as it must be, REFUSED what
    could not be tried. Never raises for what a step comes to."""
    cgroup = f"{core.config.cgroup_parent}.proof-{os.getpid()}-{time.monotonic_ns()}"
    test = SelfTest(core, cgroup, publish)
    try:
        with FarEnd(proofpolicy.MUST_NOT_LEAVE) as far:
            await test.prove(far)
    finally:
        await test.clean_up()
    return test.workload, test.receipts


class SelfTest:
    def __init__(self, core: Core, cgroup: str, publish: Callable[[Receipt], None]) -> None:
        self._core, self._publish = core, publish
        self._path = core.path_of(cgroup)
        self.workload = Workload(0, NAME, cgroup, (), True, time.time())
        self.receipts: list[Receipt] = []
        self._events: list[Event] = []
        self._process: asyncio.subprocess.Process | None = None
        self._ports: dict[str, int] = {}
        self._begun: Exec | None = None  # its own exec, inside its workload
        self._settled = False

    # --- the sequence ---

    async def prove(self, far: FarEnd) -> None:
        """Each step that others rest on ends the test when it fails: what comes after would prove nothing."""
        try:
            await self._step(Step.HOLD, self._held(far))
        finally:
            self._settle()
        if not await self._step(Step.FLOW, self._flows(far, b"B")):
            return
        await self._step(Step.DETECT, self._detect_exec())
        await self._step(Step.DETECT, self._detect_wire(far))
        core, ref = self._core, self._ref
        # First cut off and nothing else: its sockets live, it runs and tries, and the programs alone stand in the way.
        await self._step(Step.SEVER, self._sever())
        far.drain()  # what was sent before the cut
        await self._step(Step.SILENCE, self._silent(far, runs=True))
        try:
            await core.switch.contain(ref, Containment(True, True), capture=False, incident="", on_receipt=self._add)
        except KillswitchError as e:  # Protected
            self._failed(Step.SEVER, time.monotonic_ns(), e)
            return
        await asyncio.gather(
            self._step(Step.SILENCE, self._silent(far, runs=False)), self._step(Step.STILL, self._still())
        )
        await core.switch.release(ref, "thaw", on_receipt=self._add)
        await self._step(Step.SILENCE, self._silent(far, runs=True))
        await core.switch.release(ref, "network", on_receipt=self._add)
        await self._step(Step.FLOW, self._flows(far, b"A"))

    # --- the beginning ---

    async def _start(self, far: FarEnd) -> Proof:
        core, w = self._core, self.workload
        w.id = cgroupfs.create(self._path)
        index = proofpolicy.index_in(core.compiled) if core.compiled else None
        w.policies = () if index is None else (index,)
        core.plane.watch(w.id, self._path, w.mask)
        core.plane.exempt(w.id)
        core.plane.set_hold(w.id, HoldMode.ALL, 0)
        core.canary = (w.id, self._see)
        # The script by its own path; python as it runs here, which another user may not be allowed to find by name.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            program.__file__,
            str(self._path / "cgroup.procs"),
            *map(str, far.ports),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        scheduling.ordinary(self._process.pid)
        return {"pid": self._process.pid, **await self._read(BEGIN)}

    def _see(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, Exec) and self._begun is None:
            self._begun = event
            self._core.plane.holds.keep(event)  # as if its judgement took until ``_settle``

    def _settle(self) -> None:
        """It is judged: let it speak."""
        if self._begun is not None and not self._settled:
            self._settled = True
            self._core.plane.holds.settle(self._begun)

    async def _held(self, far: FarEnd) -> Proof:
        """It begins inside its workload, and nothing of it leaves while it is not judged."""
        proof = await self._start(far)
        await self._event(lambda e: isinstance(e, Exec), "no event told of the canary's own exec")
        began, tries = time.monotonic(), 0
        while (spent := time.monotonic() - began) < HELD or (not tries and spent < SECONDS):
            await asyncio.sleep(0.02)
            tries += int((await self._ask("report"))["tries"])
        came = far.drain()
        proof |= {**came, "tries": tries, "held": self._core.plane.flows(self.workload.id).tx_held}
        if heard := {k: n for k, n in came.items() if n}:
            raise NotProven(
                f"it was heard before it was judged: {', '.join(f'{k} {n}' for k, n in heard.items())}", proof
            )
        if not tries:
            raise NotProven("it did not try to send, so its silence proves nothing", proof)
        return proof

    # --- the network ---

    async def _flows(self, far: FarEnd, mark: bytes) -> Proof:
        """Traffic goes, every way: what was counted until each had some."""
        proof: Proof = {}
        came = dict.fromkeys(far.kinds, 0)
        reached = False
        end = time.monotonic() + SECONDS
        while not all(came.values()) or not reached or not proof.get("inbound_udp"):
            if time.monotonic() > end:
                missing = [k for k, n in came.items() if not n] + ["inbound tcp"] * (not reached)
                missing += ["inbound udp"] * (not proof.get("inbound_udp"))
                raise NotProven(f"nothing came over {', '.join(missing)}, so nothing can be proven", came)
            report = await self._ask("report")
            self._ports = {"tcp": report["tcp"], "udp": report["udp"]}  # new ones when they were destroyed
            proof["inbound_udp"] = report["came"].get(mark.decode(), 0)
            far.post(self._ports["udp"], mark)
            reached = reached or await far.reaches(self._ports["tcp"])
            await asyncio.sleep(0.02)
            for kind, n in far.drain().items():
                if kind in came:
                    came[kind] += n
        return {**proof, **came, "inbound_tcp": int(reached)}

    # --- detection ---

    def _needs(self, rule: str, tier: int) -> None:
        compiled, own = self._core.compiled, self.workload.policies
        tiers = [c.tier for c in compiled.rules if c.policy_index in own and c.rule.id == rule] if compiled else []
        if tiers != [tier]:
            raise NotOffered(
                "the canary's rules have no room in the kernel beside the policies in force: take some rule out"
            )

    async def _detect_exec(self) -> Proof:
        """A rule of tier 1: what it forbids never runs, what it does not forbid does, and the daemon hears of it."""
        self._needs("canary-must-not-run", 1)
        may = await self._ask(f"exec {proofpolicy.MAY_RUN}")
        if may.get("output") != "ran":
            raise NotOffered(f"what is allowed did not run either (/bin/sh: status {may.get('exited')})")
        told = await self._ask(f"exec {proofpolicy.MUST_NOT_RUN}")
        seen: Proof = {"killed": int(told["killed"]), "output": str(told["output"]) or "none"}
        if not told["killed"] or told["output"]:
            raise NotProven("an exec that a rule forbids ran its program", seen)
        event = await self._event(
            lambda e: isinstance(e, Exec) and bool(e.done & Done.KILLED), "no event told of the exec that was killed"
        )
        assert isinstance(event, Exec)
        self._judged(event, "canary-must-not-run")
        return {"tier": 1, **seen, "before_first_instruction": 1, "verdict_us": round(event.verdict_ns / 1e3, 1)}

    async def _detect_wire(self, far: FarEnd) -> Proof:
        """A rule of tier 2: the first packet of a flow that it forbids does not leave."""
        self._needs("canary-must-not-leave", 2)
        told = await self._ask(f"say {proofpolicy.MUST_NOT_LEAVE.decode()}")
        event = await self._event(
            lambda e: isinstance(e, Wire) and bool(e.done & Done.DENIED), "no event told of the flow that was denied"
        )
        far.drain()
        seen: Proof = {"tier": 2, "bytes": far.forbidden, "errno": int(told["errno"])}
        if far.forbidden:
            raise NotProven(f"{far.forbidden} bytes of a flow that a rule forbids came through", seen)
        self._judged(event, "canary-must-not-leave")
        return seen

    async def _event(self, wanted: Callable[[Event], bool], missing: str) -> Event:
        end = time.monotonic() + SECONDS
        while True:
            if found := next((e for e in self._events if wanted(e)), None):
                return found
            if time.monotonic() > end:
                raise NotProven(missing)
            await asyncio.sleep(0.005)

    def _judged(self, event: Event, rule: str) -> None:
        compiled = self._core.compiled
        if compiled is None or rule not in (c.rule.id for c in compiled.matches(event, self.workload.mask)):
            raise NotProven(f"the kernel acted by the rule {rule}, and the daemon judges otherwise")

    # --- containment ---

    async def _sever(self) -> Proof:
        return steps.sever(self._core.plane, self.workload.id, Containment(severed=True))

    async def _silent(self, far: FarEnd, *, runs: bool) -> Proof:
        """Nothing comes from it and nothing reaches it, for ``SILENCE``. ``runs``: and goes on trying."""
        began, before = time.monotonic(), self._dropped()
        inbound = tries = 0
        report = await self._ask("report") if runs else {"came": {}}
        # On a host whose CPUs are all wanted by others it may not have had its turn yet.
        while (spent := time.monotonic() - began) < SILENCE or (runs and not tries and spent < SECONDS):
            for _ in range(5):
                far.post(self._ports["udp"], b"C")
            inbound += await far.reaches(self._ports["tcp"])
            await asyncio.sleep(0.02)
            if runs:
                report = await self._ask("report")
                tries += int(report["tries"])
        proof: Proof = {**far.drain(), "inbound_tcp": inbound, "inbound_udp": int(report["came"].get("C", 0))}
        proof |= {"dropped": self._dropped() - before, "ms": round((time.monotonic() - began) * 1e3, 1)}
        if runs:
            proof["tries"] = tries
        if heard := {k: n for k, n in proof.items() if k not in ("tries", "dropped", "ms") and n}:
            what = ", ".join(f"{k} {n}" for k, n in heard.items())
            raise NotProven(f"the severed canary was heard or reached: {what}", proof)
        if runs and not tries:
            raise NotProven("the severed canary did not try to send, so its silence proves nothing", proof)
        return proof

    def _dropped(self) -> int:
        flows = self._core.plane.flows(self.workload.id)
        return flows.tx_dropped + flows.rx_dropped

    async def _still(self) -> Proof:
        """No CPU time is used for ``SILENCE``. What another CPU used last may be booked a moment after the freeze: so a
        window in which there was some is looked at once more."""
        used = 0
        for _ in range(2):
            before = cgroupfs.cpu_usage_ns(self._path)
            await asyncio.sleep(SILENCE)
            used = cgroupfs.cpu_usage_ns(self._path) - before
            if not used:
                break
        proof: Proof = {
            "cpu_ns": used,
            "window_ms": round(SILENCE * 1e3),
            "frozen": int(cgroupfs.is_frozen(self._path)),
        }
        if used or not proof["frozen"]:
            raise NotProven(f"the frozen canary used {used} ns of CPU time", proof)
        return proof

    # --- the end ---

    async def clean_up(self) -> None:
        """Release it, end it, and see that nothing is left. What goes wrong is a receipt too."""
        if self.workload.id:
            await self._step(Step.CLEAN_UP, self._cleared())

    async def _cleared(self) -> Proof:
        core, number = self._core, self.workload.id
        try:
            if core.plane.containment(number) != FREE:
                await core.switch.release(self._ref, "all")
        except Gone:
            pass
        how = await asyncio.to_thread(cgroupfs.kill, self._path)
        if self._process:
            await self._process.wait()
        core.canary = None
        core.plane.unwatch(number)
        await asyncio.to_thread(cgroupfs.remove, self._path)
        if number in core.plane.workloads() or self._path.exists():
            raise NotProven(f"the canary's cgroup {self._path} is still there")
        return {"cgroup": "removed", "ended_by": how}

    # --- one step ---

    @property
    def _ref(self) -> WorkloadRef:
        return WorkloadRef(self.workload.id, self._path, NAME)

    async def _step(self, step: Step, work: Awaitable[Proof]) -> bool:
        started = time.monotonic_ns()
        try:
            proof = await work
        except Exception as e:  # whatever it is: that it is not proven has to be told
            self._failed(step, started, e)
            return False
        self._add(Receipt(step, Outcome.DONE, self.workload.id, started, time.monotonic_ns(), proof))
        return True

    def _failed(self, step: Step, started: int, error: Exception) -> None:
        if not isinstance(error, KillswitchError | OSError | TimeoutError):
            log.exception("self-test: a step failed in a way nobody foresaw", exc_info=error)
        outcome = Outcome.REFUSED if isinstance(error, NotOffered) else Outcome.FAILED
        seen = error.seen if isinstance(error, NotProven) else {}
        text = str(error) or type(error).__name__
        self._add(Receipt(step, outcome, self.workload.id, started, time.monotonic_ns(), seen, text))

    def _add(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        self._publish(receipt)

    async def _ask(self, order: str) -> dict[str, Any]:
        assert self._process and self._process.stdin
        self._process.stdin.write(order.encode() + b"\n")
        return await self._read()

    async def _read(self, seconds: float = SECONDS) -> dict[str, Any]:
        """The canary's next line. Raises NotProven when it has ended, or does not answer."""
        assert self._process and self._process.stdout
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise NotProven(f"the canary has not answered within {seconds:g} s") from None
        if not line:
            raise NotProven(f"the canary has ended, status {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
