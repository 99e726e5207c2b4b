"""What operators may order and ask: the ``Service`` that the control plane serves."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from killswitch.commands import FREE, Containment, Outcome, Receipt
from killswitch.control.service import (
    CapabilityInfo,
    EventFilter,
    IncidentInfo,
    Order,
    OrderResult,
    PolicyInfo,
    Status,
    StreamItem,
    WorkloadInfo,
)
from killswitch.daemon import targets
from killswitch.daemon.core import Core
from killswitch.daemon.log import fields
from killswitch.daemon.proof import Keeper
from killswitch.daemon.pump import Pump
from killswitch.daemon.queries import Queries
from killswitch.daemon.reactor import Reactor
from killswitch.daemon.reload import Policies
from killswitch.daemon.workloads import Absent, Workload
from killswitch.errors import KernelError, KillswitchError, Problem, Protected, TargetError
from killswitch.kernel import cgroupfs

log = logging.getLogger("killswitch.orders")

SEVERED = Containment(severed=True)
FROZEN = Containment(frozen=True)
TERMINATED = Containment(terminated=True)
CATCH_UP = 1.0  # seconds; a flood of events that has no end must not keep an order waiting


class DaemonService:
    def __init__(
        self, core: Core, policies: Policies, queries: Queries, pump: Pump, reactor: Reactor, keeper: Keeper
    ) -> None:
        self._core = core
        self._keeper = keeper
        self._policies = policies
        self._queries = queries
        self._pump = pump
        self._reactor = reactor

    # --- cutting off ---

    async def kill(self, order: Order, *, terminate: bool) -> OrderResult:
        desired = SEVERED | FROZEN | (TERMINATED if terminate else FREE)
        return await self._contain("kill", order, desired, capture=True)

    async def sever(self, order: Order) -> OrderResult:
        return await self._contain("sever", order, SEVERED, capture=False)

    async def freeze(self, order: Order) -> OrderResult:
        return await self._contain("freeze", order, FROZEN, capture=False)

    async def terminate(self, order: Order) -> OrderResult:
        return await self._contain("terminate", order, TERMINATED, capture=False)

    async def _contain(self, verb: str, order: Order, desired: Containment, *, capture: bool) -> OrderResult:
        core = self._core
        if targets.is_host(order.target):
            return await self._contain_host(verb, order, desired)
        w = self._to_contain(order.target)
        incident = core.incident_of(w, order.reason)
        order_id = self._ordered(verb, order, w, incident.id)
        receipts = await core.contain(
            w, desired, capture=capture, reason=order.reason, wait_for_capture=order.wait_for_evidence
        )
        return self._result(order_id, order, w, incident.id, receipts)

    async def _contain_host(self, verb: str, order: Order, desired: Containment) -> OrderResult:
        host = self._core.host
        if desired.terminated or not desired.severed:
            raise Protected(
                f"{verb} host: the host's own processes are never frozen or ended; "
                "'kill host' cuts it off and freezes what is watched"
            )
        await host.check(force=order.force)
        incident = host.incident_of(order.reason).id
        order_id = self._ordered(verb, order, None, incident)
        return self._host_result(order_id, incident, await host.contain(desired, order.reason))

    def _host_result(self, order_id: str, incident: str, receipts: Sequence[Receipt]) -> OrderResult:
        complete = self._outcome(order_id, receipts)
        return OrderResult(order_id, self._core.host.workload_info(), incident, tuple(receipts), complete)

    def _to_contain(self, target: str) -> Workload:
        """The workload meant; a cgroup that nobody watched yet is watched from now on."""
        core = self._core
        found = targets.resolve(target, core.workloads, core.mount)
        if isinstance(found, Absent):
            raise TargetError(
                f"target {target!r}: its cgroup {found.cgroup} is gone; it stays contained if it comes back, until released"
            )
        if isinstance(found, Workload):
            return found
        core.check_protected(found.cgroup)
        return core.watch(found.cgroup, explicit=True)

    # --- letting go ---

    async def thaw(self, order: Order) -> OrderResult:
        return await self._release("thaw", order, "thaw")

    async def release(self, order: Order, *, stage: str) -> OrderResult:
        return await self._release(f"release {stage}", order, stage)

    async def _release(self, verb: str, order: Order, stage: str) -> OrderResult:
        core = self._core
        if targets.is_host(order.target):
            return await self._release_host(verb, order, stage)
        found = targets.resolve(order.target, core.workloads, core.mount)
        if isinstance(found, targets.Unwatched):
            raise TargetError(f"target {order.target!r}: {found.cgroup} is not watched, so there is nothing to release")
        if isinstance(found, Absent):
            return self._release_absent(verb, order, found)
        order_id = self._ordered(verb, order, found, found.incident)
        incident = found.incident
        receipts = await core.release(found, stage, order.reason)
        result = self._result(order_id, order, found, incident, receipts)
        core.places.vacate(found)
        return result

    async def _release_host(self, verb: str, order: Order, stage: str) -> OrderResult:
        host = self._core.host
        if stage == "thaw":
            raise TargetError("host: none of its own processes is frozen; thaw its workloads by their names")
        if host.desired == FREE:
            raise TargetError("host: is not cut off, so there is nothing to release")
        incident = host.it.incident
        order_id = self._ordered(verb, order, None, incident)
        return self._host_result(order_id, incident, await host.release(order.reason))

    def _release_absent(self, verb: str, order: Order, absent: Absent) -> OrderResult:
        order_id = self._ordered(verb, order, None, absent.incident)
        self._core.places.forget(absent, order.reason)
        self._core.records.order_done(order_id, "complete")
        return OrderResult(order_id, self._queries.absent_info(absent), absent.incident, (), True)

    async def forget(self, order: Order) -> str:
        """What automatic containment remembers: what rules have spent of their budget, or the programs of an incident."""
        core = self._core
        if order.target == "budget":
            used = len(core.spending.budget.charged(time.monotonic_ns()))
            core.spending.reset()
            told = f"the budget of automatic kills is whole again: {used} were used"
        else:
            count = core.continuing.forget(order.target, order.reason) if core.continuing else 0
            if not count:
                raise TargetError(
                    f"forget {order.target!r}: no program of that incident, or of that SHA-256, is looked for; "
                    "say budget, an incident's id, or the first 8 digits of a SHA-256 at least"
                )
            told = f"{count} {'program is' if count == 1 else 'programs are'} no longer looked for in other workloads"
        core.records.order_done(self._ordered("forget", order, None, ""), "complete")
        return told

    # --- watching ---

    async def watch(self, order: Order, *, name: str, create: bool = False) -> WorkloadInfo:
        core = self._core
        cgroup = targets.cgroup_path(order.target, core.mount)
        core.check_protected(cgroup)
        inside = core.workloads.holding(cgroup)
        if inside and inside.cgroup != cgroup:
            raise TargetError(
                f"cgroup {cgroup}: lies inside the workload {inside.name} ({inside.cgroup}), which is watched whole"
            )
        if name:
            core.workloads.check_name(name, cgroup)
        path = core.path_of(cgroup)
        if create:
            cgroupfs.create(path)
        targets.id_of(cgroup, core.mount)
        known = core.workloads.at(cgroup)
        if known and name and known.name != name:
            core.workloads.rename(known, name)
        w = core.watch(cgroup, name=name, explicit=True)
        core.records.order_done(self._ordered("watch", order, w, ""), "complete")
        await self._judged(w)  # the answer tells of what is found in what runs there already
        return self._queries.workload_info(w)

    async def unwatch(self, order: Order, *, remove: bool = False) -> WorkloadInfo:
        core = self._core
        # What the kernel saw of it until now is judged first: a finding must not be lost with its workload.
        w = self._watched(order.target)
        read = await self._pump.catch_up(CATCH_UP)
        if not (await self._judged(w) and read):
            log.warning("unwatching %s while events of it may not have been judged: there were too many", w.name)
        w = self._watched(order.target)  # unless its cgroup went meanwhile
        contained = w.desired | core.observed(w)
        if w.desired != FREE or (contained != FREE and not contained.terminated):
            raise TargetError(f"workload {w.name}: is {contained}; release it first: killswitch release {w.name}")
        if remove and cgroupfs.populated(core.path_of(w.cgroup)):
            raise TargetError(
                f"workload {w.name}: its cgroup {w.cgroup} still has processes; end them, or do not remove it"
            )
        info = self._queries.workload_info(w)
        core.records.order_done(self._ordered("unwatch", order, w, ""), "complete")
        core.unwatch(w)
        if remove:
            try:
                cgroupfs.remove(core.path_of(w.cgroup), timeout_s=0)
            except KernelError as e:
                raise TargetError(f"workload {w.name}: no longer watched, but its cgroup stays: {e}") from e
        return info

    def _watched(self, target: str) -> Workload:
        core = self._core
        w = targets.resolve(target, core.workloads, core.mount)
        if not isinstance(w, Workload):
            raise TargetError(f"target {target!r}: is not watched; {core.workloads.suggest(target)}")
        return w

    async def _judged(self, w: Workload) -> bool:
        """Wait until all that was handed in of the workload is judged, and what is done about it has begun."""
        try:
            async with asyncio.timeout(CATCH_UP):
                await self._reactor.caught_up((w.id,))
        except TimeoutError:
            return False
        await asyncio.sleep(0)  # tasks begin in the order in which they were made: containment is desired from now on
        return True

    # --- orders' own records ---

    def _ordered(self, verb: str, order: Order, w: Workload | None, incident: str) -> str:
        order_id = f"ord-{uuid.uuid4().hex[:12]}"
        self._core.records.order(order_id, verb, order, w, incident)
        log.warning(
            "order %s",
            fields(
                order=order_id, verb=verb, target=order.target, role=order.role, incident=incident, reason=order.reason
            ),
        )
        return order_id

    def _result(
        self, order_id: str, order: Order, w: Workload, incident: str, receipts: Sequence[Receipt]
    ) -> OrderResult:
        complete = self._outcome(order_id, receipts)
        return OrderResult(order_id, self._queries.workload_info(w), incident, tuple(receipts), complete)

    def _outcome(self, order_id: str, receipts: Sequence[Receipt]) -> bool:
        complete = bool(receipts) and all(r.outcome is Outcome.DONE for r in receipts)
        errors = "; ".join(f"{r.step}: {r.error}" for r in receipts if r.outcome is not Outcome.DONE)
        done = any(r.outcome is Outcome.DONE for r in receipts)
        self._core.records.order_done(order_id, "complete" if complete else "partial" if done else "failed", errors)
        return complete

    # --- reading ---

    async def status(self) -> Status:
        return self._queries.status()

    async def workloads(self) -> Sequence[WorkloadInfo]:
        return self._queries.workloads()

    async def incidents(self, *, open_only: bool, limit: int) -> Sequence[IncidentInfo]:
        return await self._queries.incidents(open_only=open_only, limit=limit)

    async def incident(self, incident: str) -> IncidentInfo:
        return await self._queries.incident(incident)

    def evidence(self, incident: str) -> AsyncIterator[tuple[str, bytes]]:
        return self._queries.evidence(incident)

    def stream(self, wanted: EventFilter) -> AsyncIterator[StreamItem]:
        core = self._core
        if wanted.workload.startswith("/"):
            w = core.workloads.at(targets.cgroup_path(wanted.workload, core.mount))
            if w is None:
                raise TargetError(f"events of {wanted.workload!r}: {core.workloads.suggest(wanted.workload)}")
            wanted = replace(wanted, workload=w.name)
        return core.streams.follow(wanted)

    async def capabilities(self) -> Sequence[CapabilityInfo]:
        return await self._queries.capabilities()

    # --- policies ---

    async def policies(self) -> Sequence[PolicyInfo]:
        return self._policies.describe()

    async def check_policy(self, text: str, file: str) -> Sequence[Problem]:
        return await self._policies.problems_of(text, file)

    async def reload_policies(self, order: Order) -> Sequence[PolicyInfo]:
        order_id = self._ordered("reload policies", order, None, "")
        try:
            await self._policies.reload()
        except KillswitchError as e:
            self._core.records.order_done(order_id, "failed", str(e))
            raise
        self._core.records.order_done(order_id, "complete")
        return self._policies.describe()

    # --- proving ---

    async def self_test(self, order: Order) -> OrderResult:
        order_id, w, receipts = await self._keeper.prove(order)
        complete = all(r.outcome is Outcome.DONE for r in receipts)
        return OrderResult(order_id, self._queries.workload_info(w), "", tuple(receipts), complete)

    async def verify_log(self) -> tuple[bool, str]:
        return await self._core.records.verify()
