"""The kill: one resumable transaction, sever → freeze → destroy sockets → capture → (terminate), and its undoing.

What is promised to who calls:
- severing comes first, before anything is waited for, whatever else is going on for that workload;
- no work that grows with the number of processes stands before severed and frozen;
- a step that fails does not stop the next, and each leaves a receipt the moment it is done;
- an order that has begun is carried to its end, also when its caller goes away;
- a release waits for orders before it, and undoes nothing that an order after it asks for.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from killswitch import errors
from killswitch.commands import FREE, Containment, KillProcess, Outcome, Receipt, Step
from killswitch.contain import evidence, seals, steps
from killswitch.contain.lanes import Lanes, Order
from killswitch.contain.model import OnReceipt, Plane, Proof, Stage, StepFailed, Stopwatch, WorkloadRef
from killswitch.contain.protected import Protected
from killswitch.errors import Gone, KernelError, KillswitchError
from killswitch.kernel import cgroupfs, pidfd, scheduling
from killswitch.kernel.sockdiag import InetSocket
from killswitch.kernel.sockets import Report

__all__ = ["Stage", "Switch", "WorkloadRef"]

log = logging.getLogger("killswitch.contain")

FREEZE_S = 2.0
THAW_S = 2.0
EXIT_S = 2.0
ANSWER_S = 0.005  # evidence lets the answer to who ordered it go first: both want the interpreter


def _ignore(_: Receipt) -> None:
    pass


class Switch:
    """One event loop uses it. ``evidence_dir`` is made when it is first needed."""

    def __init__(
        self,
        plane: Plane,
        evidence_dir: Path,
        *,
        protected: Protected,
        freeze_timeout_s: float = FREEZE_S,
        kill_unfrozen: bool = True,
        limits: evidence.Limits | None = None,
    ) -> None:
        self._plane, self._evidence_dir, self._protected = plane, evidence_dir, protected
        self._freeze_timeout_s, self._kill_unfrozen, self._limits = (
            freeze_timeout_s,
            kill_unfrozen,
            limits or evidence.Limits(),
        )
        self.uncovered: tuple[str, ...] = ()  # what a cut does not reach on this kernel, by `doctor`'s names
        self._lanes = Lanes()
        self._capturing = 0
        # Of their own: a kill must not queue behind whatever else fills the loop's default executor.
        self._fast = ThreadPoolExecutor(2, "ks-sockets")
        self._slow = ThreadPoolExecutor(2, "ks-evidence", scheduling.stand_back)
        self._rounds = ThreadPoolExecutor(1, "ks-guard", scheduling.stand_back)
        self._unguarded: frozenset[str] = frozenset()  # what could not be done, and is in the log
        protected.watched = lambda: plane.workloads().keys()
        protected.refresh()

    @property
    def urgent(self) -> bool:
        """Whether somebody is being contained at this moment."""
        return self._lanes.urgent > 0

    @property
    def capturing(self) -> bool:
        """Whether evidence is being captured at this moment."""
        return self._capturing > 0

    async def aclose(self) -> None:
        """Wait for every order that has begun, captures included."""
        await self._lanes.idle()
        self._fast.shutdown(wait=False)
        self._slow.shutdown(wait=False)
        self._rounds.shutdown(wait=False)

    # --- contain ------------------------------------------------------------------------------------------------------

    async def contain(
        self,
        workload: WorkloadRef,
        desired: Containment,
        *,
        capture: bool,
        incident: str,
        on_receipt: OnReceipt = _ignore,
        hot: tuple[tuple[int, int, int], ...] = (),
        wait_for_capture: bool = False,
    ) -> list[Receipt]:
        """Bring the workload to at least ``desired``; the receipts of the steps that were made.

        Comes back when it is severed, frozen, its sockets destroyed and (when asked for) terminated. Evidence is captured
        behind, its receipt given to ``on_receipt`` only, unless it is waited for; termination always waits for it.
        ``hot`` are (pid, address, samples) to be named in the evidence. Raises Protected before anything is done.
        """
        self._protected.check_cgroup(workload.path, fresh=False)
        order = self._begin(workload, desired, on_receipt)
        order.task = asyncio.create_task(
            self._carry_out(order, capture=capture, incident=incident, hot=hot), name=f"contain {workload.name}"
        )
        await asyncio.shield(order.task if wait_for_capture or desired.terminated else order.contained)
        return list(order.receipts)

    def _begin(self, workload: WorkloadRef, desired: Containment, on_receipt: OnReceipt) -> Order:
        """Open the order and sever: all of it at once, without a chance for anything else to run between."""
        order = self._lanes.open(workload, desired, on_receipt)
        self._lanes.hurry(order)
        if desired.severed:
            watch = Stopwatch(Step.SEVER, workload.id)
            try:
                proof = steps.sever(self._plane, workload.id, desired)
            except Exception as e:  # whatever it is, the steps behind must be made
                order.add(_failed(watch, e))
            else:
                if self.uncovered:
                    proof["not_covered"] = ",".join(self.uncovered)
                order.add(watch.receipt(Outcome.DONE, proof))
        else:
            steps.pin(self._plane, workload.id, desired)
        return order

    async def _carry_out(
        self, order: Order, *, capture: bool, incident: str, hot: tuple[tuple[int, int, int], ...]
    ) -> None:
        """Everything behind severing. Never raises."""
        workload, desired = order.workload, order.desired
        destroyed: list[InetSocket] = []
        try:
            async with order.lane.lock:
                if desired.frozen:
                    await self._step(order, Step.FREEZE, self._freeze(workload))
                if desired.severed:
                    await self._step(order, Step.DESTROY_SOCKETS, self._destroy(workload, destroyed, desired.frozen))
            order.settle()
            if capture:
                await asyncio.sleep(ANSWER_S)
                await self._step(order, Step.CAPTURE, self._capture(workload, incident, hot, destroyed))
            if desired.terminated:
                await order.lane.earlier(order)  # their evidence must be kept before what it is taken from ends
                async with order.lane.lock:
                    await self._step(order, Step.TERMINATE, self._terminate(workload))
        finally:
            order.settle()
            self._lanes.close(order)

    async def _step(self, order: Order, step: Step, work: Awaitable[Proof]) -> None:
        watch = Stopwatch(step, order.workload.id)
        try:
            proof = await work
        except Exception as e:
            order.add(_failed(watch, e))
        else:
            order.add(watch.receipt(Outcome.DONE, proof))

    async def _freeze(self, workload: WorkloadRef) -> Proof:
        path = workload.directory()
        return await steps.freeze(path, self._freeze_timeout_s, kill_unfrozen=self._kill_unfrozen)

    async def _destroy(self, workload: WorkloadRef, destroyed: list[InetSocket], frozen: bool) -> Proof:
        proof, report = await self._destroy_now(workload, running=not frozen, waiting=True)
        destroyed.extend(report.destroyed)
        return proof

    async def _destroy_now(
        self, workload: WorkloadRef, *, running: bool = True, waiting: bool = False
    ) -> tuple[Proof, Report]:
        def work() -> tuple[Proof, Report]:
            path, spare = workload.directory(), self._protected.sockets()
            return steps.destroy_sockets(self._plane, workload.id, path, spare, running=running, waiting=waiting)

        return await asyncio.get_running_loop().run_in_executor(self._fast, work)

    async def _capture(
        self,
        workload: WorkloadRef,
        incident: str,
        hot: tuple[tuple[int, int, int], ...],
        destroyed: list[InetSocket],
    ) -> Proof:
        subject = evidence.Subject(workload, incident, self.observe(workload), hot, tuple(destroyed))
        work = evidence.Capture(self._evidence_dir, subject, self._limits, self._lanes.pacer())
        self._capturing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._slow, work.run)
        finally:
            self._capturing -= 1

    async def _terminate(self, workload: WorkloadRef) -> Proof:
        try:
            return await steps.terminate(workload.directory(), steps.TERMINATE_S)
        except Gone:
            return {"populated": 0, "removed": 1}  # the kernel lets nobody remove a cgroup in which something lives

    # --- release ------------------------------------------------------------------------------------------------------

    async def release(self, workload: WorkloadRef, stage: str, on_receipt: OnReceipt = _ignore) -> list[Receipt]:
        """Undo containment: ``thaw``, ``network`` or ``all`` (network, then thaw). Waits for the orders before it.

        What an order that came later asks for is not undone (outcome REFUSED), and when a step fails the next is not made:
        a release that goes wrong leaves the workload contained.
        """
        wanted = Stage(stage)
        order = self._lanes.open(workload, FREE, on_receipt)
        order.task = asyncio.create_task(self._let_go(order, wanted), name=f"release {workload.name}")
        await asyncio.shield(order.task)
        return list(order.receipts)

    async def _let_go(self, order: Order, stage: Stage) -> None:
        try:
            await order.lane.earlier(order)
            async with order.lane.lock:
                # The network first: it never runs without one, and frozen with a network it can do nothing.
                if stage in (Stage.NETWORK, Stage.ALL):
                    await self._undo(order, Step.RECONNECT, lambda d: d.severed, self._reconnect)
                if stage in (Stage.THAW, Stage.ALL) and all(r.outcome is Outcome.DONE for r in order.receipts):
                    await self._undo(order, Step.THAW, lambda d: d.frozen, self._thaw)
        finally:
            order.settle()
            self._lanes.close(order)

    async def _undo(
        self,
        order: Order,
        step: Step,
        asks: Callable[[Containment], bool],
        work: Callable[[WorkloadRef], Awaitable[Proof]],
    ) -> None:
        if asks(order.lane.later(order)):
            watch = Stopwatch(step, order.workload.id)
            order.add(
                watch.receipt(Outcome.REFUSED, {}, "a later order contains it: release it again when that is done")
            )
            return
        self._lanes.releases += 1
        await self._step(order, step, work(order.workload))

    async def _reconnect(self, workload: WorkloadRef) -> Proof:
        proof = steps.reconnect(self._plane, workload.id)
        await asyncio.get_running_loop().run_in_executor(self._fast, self._review())
        return proof

    def _review(self) -> Callable[[], None]:
        sealed = self._plane.frames.sealed()
        severed = [c for c in self._plane.workloads() if self._plane.containment(c).severed]
        return lambda: seals.review(self._plane.frames, sealed, severed)

    async def _thaw(self, workload: WorkloadRef) -> Proof:
        path = workload.directory()
        try:
            now = self._plane.containment(workload.id)
            if now.severed:
                # From now on it could make frames again.
                await asyncio.get_running_loop().run_in_executor(self._fast, steps.prepare_thaw, self._plane, path)
            self._plane.set_containment(workload.id, replace(now, frozen=False, terminated=False))
        except Gone:
            pass  # it is not watched any more: nothing is pinned that could freeze it again
        return await steps.thaw(path, THAW_S)

    # --- one process --------------------------------------------------------------------------------------------------

    async def kill_process(self, command: KillProcess) -> Receipt:
        """SIGKILL to exactly that process, and see it end. Never raises; a protected one is REFUSED."""
        watch = Stopwatch(Step.KILL_PROCESS, command.workload)
        try:
            self._protected.check_process(command.pid)
            with pidfd.process(command.pid, command.start_ticks) as fd:
                pidfd.send(fd, signal.SIGKILL)
                if not await pidfd.wait_exit(fd, EXIT_S):
                    raise StepFailed(f"process {command.pid} lives {EXIT_S:g} s after SIGKILL", {"exited": 0})
        except errors.Protected as e:
            return watch.receipt(Outcome.REFUSED, {"pid": command.pid}, str(e))
        except Gone:
            return watch.receipt(Outcome.DONE, {"pid": command.pid, "exited": 1, "already": 1})
        except Exception as e:
            return _failed(watch, e)
        return watch.receipt(Outcome.DONE, {"pid": command.pid, "exited": 1})

    # --- level-triggered ----------------------------------------------------------------------------------------------

    def observe(self, workload: WorkloadRef) -> Containment:
        """What the kernel says now. Raises Gone when the cgroup was removed."""
        events = cgroupfs.events(workload.directory())
        try:
            pinned = self._plane.containment(workload.id)
        except Gone:
            pinned = FREE  # not watched: nothing drops its packets
        return Containment(pinned.severed, events.frozen, pinned.terminated and not events.populated)

    async def reconcile(self, desired: Mapping[int, Containment]) -> list[Receipt]:
        """Repair what is less contained than desired (cgroup id → containment); the receipts of the repairs.

        Workloads with an order under way are left to it. When a release comes in while this runs it stops: what was desired
        when we were called is not what is desired any more. What is gone needs no repair.
        """
        releases = self._lanes.releases
        receipts: list[Receipt] = []
        for cgroup, wanted in desired.items():
            if self._lanes.releases != releases:
                break  # what is still desired comes with the next call
            if self._lanes.busy(cgroup):
                continue
            try:
                missing = self._missing(cgroup, wanted)
            except Gone:
                continue
            except KernelError as e:
                log.error("cgroup id %d cannot be observed: %s", cgroup, e)
                continue
            if missing == FREE:
                receipts += await self._sweep(cgroup, wanted)
            else:
                path = cgroupfs.path_of(cgroup)
                order = self._begin(WorkloadRef(cgroup, path, path.name), missing, _ignore)
                order.task = asyncio.create_task(self._carry_out(order, capture=False, incident="", hot=()))
                await asyncio.shield(order.task)
                receipts += order.receipts
        return receipts

    async def guard_devices(self) -> None:
        """Have frames judged in every network namespace in which a watched workload may make some; what is new, mostly."""
        await asyncio.get_running_loop().run_in_executor(self._rounds, self._guard, self._review())

    def _guard(self, review: Callable[[], None]) -> None:
        try:
            _, errors = steps.guard(self._plane, self._plane.census(None).framing)
            self._plane.tidy()
            review()
        except KernelError as e:
            errors = [str(e)]
        for error in sorted(set(errors) - self._unguarded):
            log.error("frames of packet sockets are not judged everywhere: %s", error)
        self._unguarded = frozenset(errors)

    async def _sweep(self, cgroup: int, wanted: Containment) -> list[Receipt]:
        """A workload that is severed and runs may have been handed a socket since: look again. Nothing new, no receipt."""
        if not wanted.severed or wanted.frozen:
            return []
        path = cgroupfs.path_of(cgroup)
        order = self._lanes.open(WorkloadRef(cgroup, path, path.name), FREE, _ignore)
        order.task = asyncio.create_task(self._look_again(order), name=f"sweep {path.name}")
        await asyncio.shield(order.task)
        return order.receipts

    async def _look_again(self, order: Order) -> None:
        watch = Stopwatch(Step.DESTROY_SOCKETS, order.workload.id)
        try:
            async with order.lane.lock:
                proof, report = await self._destroy_now(order.workload)
            if report.newly or proof.get("ended_holders"):
                order.add(watch.receipt(Outcome.DONE, {**proof, "handed_since": report.newly}))
        except Gone:
            pass
        except Exception as e:
            order.add(_failed(watch, e))
        finally:
            order.settle()
            self._lanes.close(order)

    def _missing(self, cgroup: int, wanted: Containment) -> Containment:
        path = cgroupfs.path_of(cgroup)
        events = cgroupfs.events(path)
        now = self.observe(WorkloadRef(cgroup, path, path.name))
        return Containment(
            wanted.severed and not now.severed,
            wanted.frozen and not now.frozen,
            wanted.terminated and events.populated,
        )


def _failed(watch: Stopwatch, error: Exception) -> Receipt:
    if not isinstance(error, (StepFailed, KillswitchError, OSError)):
        log.exception("a step failed in a way nobody foresaw", exc_info=error)
    proof = error.proof if isinstance(error, StepFailed) else {}
    return watch.receipt(Outcome.FAILED, proof, str(error) or type(error).__name__)
