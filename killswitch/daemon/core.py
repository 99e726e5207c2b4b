"""What the daemon knows and holds, and the few acts that everything else is made of: watch, unwatch, contain, release."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from killswitch.commands import FREE, NO_GUARD, Containment, Finding, Guard, KillProcess, Outcome, Receipt, Step
from killswitch.config import Config
from killswitch.contain.model import WorkloadRef
from killswitch.contain.protected import Protected as ProtectedProcesses
from killswitch.contain.switch import Switch
from killswitch.control.service import StreamItem
from killswitch.daemon.continuing import Continuing
from killswitch.daemon.delays import Delays
from killswitch.daemon.guarding import Guarding
from killswitch.daemon.incidents import Incident, Incidents
from killswitch.daemon.log import fields
from killswitch.daemon.places import Places
from killswitch.daemon.proofpolicy import is_canary
from killswitch.daemon.records import Records
from killswitch.daemon.spending import Spending
from killswitch.daemon.streams import Streams
from killswitch.daemon.upkeep import Upkeep
from killswitch.daemon.wholehost import WholeHost
from killswitch.daemon.workloads import Workload, Workloads
from killswitch.engine import Engine
from killswitch.errors import Gone, Protected
from killswitch.events import Event, Released, WorkloadAdded, WorkloadRemoved
from killswitch.kernel import cgroupfs
from killswitch.kernel.abi import HoldMode
from killswitch.kernel.dataplane import DataPlane
from killswitch.policy.absence import Absence, absence
from killswitch.policy.compiled import Compiled
from killswitch.policy.guard import guarded
from killswitch.policy.model import Hold

log = logging.getLogger("killswitch")

STRICT_SECONDS = 60.0  # after the last flood
HOLD_MODES = {Hold.OFF: HoldMode.OFF, Hold.MATCHED: HoldMode.MATCHED, Hold.ALL: HoldMode.ALL}


class Core:
    """One daemon's state. All of it is touched by the event loop's thread alone."""

    def __init__(
        self,
        config: Config,
        mount: Path,
        plane: DataPlane,
        records: Records,
        switch: Switch,
        guard: ProtectedProcesses,
    ) -> None:
        self.config = config
        self.mount = mount
        self.plane = plane
        self.records = records
        self.switch = switch
        self.guard = guard
        self.workloads = Workloads()
        self.incidents = Incidents()
        self.streams = Streams()
        self.spending = Spending(self)
        self.guarding = Guarding(self)
        self.continuing: Continuing | None = None  # set by the reactor
        self.lost: Counter[str] = Counter()
        self.repeated = 0  # events that were told once for many: the same process, the same address, within a moment
        self.delays = Delays()
        self.stuck: dict[str, str] = {}  # part -> why, as the watchdog last saw it
        self.host = WholeHost(self)
        self.compiled: Compiled | None = None
        self.engine: Engine | None = None
        self.policy_problem = ""  # why the last reload was refused, "" = it was not
        self.unseen: dict[str, str] = {}  # kind of event that rules look at -> why none of it comes
        self.canary: tuple[int, Callable[[Event], None]] | None = (
            None  # the self-test's: (cgroup id, who sees its events)
        )
        self.steady = asyncio.Lock()  # held while the policies in force must stay, or are being changed
        self.fatal = False
        self.on_fatal: Callable[[], None] = lambda: None
        self.upkeep = Upkeep(self)
        self.places = Places(self)
        self._guarding: asyncio.Task[None] | None = None
        self._releasing: Counter[int] = Counter()  # workloads -> releases under way
        self._strict_until: dict[int, float] = {}  # workloads that flood
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- tasks ---

    def spawn(self, work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any]:
        """Run beside everything else; what it raises is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s failed: %s", task.get_name(), error, exc_info=error)

    async def settle(self, seconds: float) -> None:
        """Wait for what runs: a containment that has begun is finished before the daemon stops."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    def essential(self, task: asyncio.Task[Any]) -> None:
        """Without this task the daemon is worse than none: when it fails, end, so that the service manager restarts us."""

        def ended(done: asyncio.Task[Any]) -> None:
            if not done.cancelled() and done.exception():
                self.fail(f"{done.get_name()} has failed")

        task.add_done_callback(ended)

    def fail(self, why: str) -> None:
        """End: who starts us again begins with what is pinned, and with the ledger."""
        log.critical("ending, containment stays in force: %s", why)
        self.fatal = True
        self.on_fatal()

    def report_stuck(self, stuck: Mapping[str, str]) -> None:
        self.stuck = dict(stuck)

    # --- the engine ---

    def tell(self, event: Event) -> None:
        """Hand an event of our own making to the engine (and to who follows). Set by the reactor."""
        raise RuntimeError("no reactor yet")

    # --- workloads ---

    def path_of(self, cgroup: str) -> Path:
        return self.mount / cgroup.lstrip("/")

    def ref(self, w: Workload) -> WorkloadRef:
        return WorkloadRef(w.id, self.path_of(w.cgroup), w.name)

    def policies_for(self, cgroup: str) -> tuple[int, ...]:
        return tuple(self.compiled.policies_for(cgroup)) if self.compiled else ()

    def absence_of(self, policies: Iterable[int]) -> Absence:
        """What these policies (by index) say of a daemon that is away."""
        return absence(self.compiled.policies[p] for p in policies) if self.compiled else Absence()

    def apply_absence(self, workload: int, policies: Iterable[int]) -> None:
        """Tell the kernel what these policies say of programs that are not judged yet, of a daemon that is away, and of what
        LSM programs refuse. Of none: it goes on whatever happens."""
        said = self.absence_of(policies)
        self.plane.set_guards(workload, self.guards_of(policies))
        self.plane.set_grace(workload, said.grace_ms)
        strict = said.holds and time.monotonic() < self._strict_until.get(workload, 0.0)
        self.plane.set_hold(workload, HOLD_MODES[Hold.ALL if strict else said.hold], said.lapse_ms)

    def tighten(self, w: Workload) -> None:
        """It floods: for some time everything that it executes is held until it is judged, whatever the rules ask about it."""
        self._strict_until[w.id] = time.monotonic() + STRICT_SECONDS
        self.guarding.shield(w)

    @property
    def deny_kills(self) -> str:
        """Why `deny` of rules on exec means SIGKILL here; "" = it does not, or no rule in force says so."""
        if self.compiled is None or not any(clause.deny for clause in self.compiled.tables.clauses):
            return ""
        return self.plane.left_out.get("lsm_exec", "")

    def guards_of(self, policies: Iterable[int]) -> Guard:
        """What these policies (by index) have LSM programs refuse, where this kernel has them."""
        return guarded(self.compiled.policies[p] for p in policies) if self.compiled else NO_GUARD

    def attended(self, w: Workload, *, keep: bool) -> None:
        """A daemon is back for a workload that the kernel had cut off by itself: keep it so, or do as was ordered before."""
        if keep:
            w.desired |= Containment(severed=True)
        self.plane.set_containment(w.id, w.desired)
        self.plane.attended(w.id)
        self.records.desired(w, "the daemon is back")

    def watch(self, cgroup: str, *, name: str = "", explicit: bool = False) -> Workload:
        """Watch an existing cgroup; known already: bring it up to date. Raises Gone, KernelError."""
        path = self.path_of(cgroup)
        number = cgroupfs.cgroup_id(path)
        known = self.workloads.get(number)
        absent = self.workloads.absent.get(cgroup)
        if absent:
            name, explicit = name or absent.name, explicit or absent.explicit
        policies = self.policies_for(cgroup)
        self.plane.watch(number, path, sum(1 << p for p in policies))
        w = self.workloads.add(number, cgroup, policies, name=name, explicit=explicit)
        self.guarding.shield(w)
        if known is None:
            self.tell(WorkloadAdded(time.monotonic_ns(), number, w.name, cgroup, policies))
            log.info("watching %s", fields(workload=w.name, cgroup=cgroup, id=number, policies=self.names_of(policies)))
            if explicit and not policies:
                log.warning(
                    "no policy's workloads match %s: it is counted and can be contained, but not judged", cgroup
                )
        self.records.workload(w)
        if absent:
            self.places.taken_again(w, absent)
        if known is None and not self.is_canary(cgroup):
            self.host.include(w)
        return w

    def names_of(self, policies: Sequence[int]) -> str:
        return ",".join(self.compiled.policies[p].name for p in policies) if self.compiled else ""

    def gone(self, workload: int) -> None:
        """The workload's cgroup was removed: off the list; its incident and what was wanted of it are kept."""
        w = self.workloads.remove(workload)
        self._strict_until.pop(workload, None)
        if w is None:
            return
        self.plane.unwatch(workload)
        if not self.places.left(w) and (incident := self.incidents.get(w.incident)):
            self.close(incident)  # nobody could release it any more
        self.records.workload_gone(w.cgroup, "its cgroup was removed")
        self.tell(WorkloadRemoved(time.monotonic_ns(), workload))
        log.info("gone %s", fields(workload=w.name, cgroup=w.cgroup, desired=w.desired, incident=w.incident))

    def is_canary(self, cgroup: str) -> bool:
        return is_canary(cgroup, self.config.cgroup_parent)

    def check_protected(self, cgroup: str) -> None:
        """Raises Protected when the cgroup holds what must never be contained, or is the self-test's."""
        if self.is_canary(cgroup):
            raise Protected(f"cgroup {cgroup} is the self-test's own, and gone in a moment; name another")
        self.guard.check_cgroup(self.path_of(cgroup))

    def unwatch(self, w: Workload) -> None:
        self.plane.unwatch(w.id)
        self.workloads.remove(w.id)
        if incident := self.incidents.get(w.incident):
            self.close(incident)  # nobody could release it any more
        self.records.workload_gone(w.cgroup, "unwatched")
        self.tell(WorkloadRemoved(time.monotonic_ns(), w.id))
        log.info("unwatched %s", fields(workload=w.name, cgroup=w.cgroup))

    # --- incidents ---

    def incident_of(self, w: Workload, reason: str) -> Incident:
        """The workload's open incident; opened when there is none, by the engine, which numbers them all. While there is no
        engine yet, or no workload any more, an incident without a number may stand in, which is kept nowhere."""
        number = self.engine.workloads.open_incident(w.id) if self.engine and w.id in self.workloads else w.incident
        known = self.incidents.get(number)
        if known and not known.closed_unix:
            w.incident = number
            return known
        before = [i for i in self.incidents.of_cgroup(w.cgroup) if i.closed_unix]
        new = Incident(number, w.id, w.name, w.cgroup, reason, after=before[-1].id if before else "")
        w.incident = number
        if number:
            self.incidents.add(new)
            self.records.incident(new)
            log.warning("incident opened %s", fields(incident=number, workload=w.name, reason=reason))
        return new

    # --- containment ---

    async def contain(
        self,
        w: Workload,
        desired: Containment,
        *,
        capture: bool,
        reason: str,
        wait_for_capture: bool = False,
        hot: tuple[tuple[int, int, int], ...] = (),
    ) -> list[Receipt]:
        """Bring a workload to at least ``desired``. A step that failed raises nothing: its receipt says so.

        Comes back when it is severed, frozen and its sockets are destroyed; evidence is captured behind, unless it is waited
        for. What is to be terminated is terminated only after its evidence is kept, so that is always waited for. Raises
        Protected before anything is done, when the workload holds what must never be contained.
        """
        self.guard.check_cgroup(self.path_of(w.cgroup), fresh=False)
        incident = self.incident_of(w, reason)
        w.desired |= desired
        incident.containment |= desired
        if self.engine and w.id in self.workloads:
            self.engine.workloads.adopt(w.id, w.desired, incident=incident.id, captured=capture)
        self.records.desired(w, reason)
        receipts = await self.switch.contain(
            self.ref(w),
            w.due,
            capture=capture,
            incident=incident.id,
            on_receipt=lambda r: self.receipt(r, w, incident),
            hot=hot,
            wait_for_capture=wait_for_capture,
        )
        if incident.id:
            self.records.incident(incident)
        return receipts

    def found_before(self, w: Workload) -> tuple[Finding, ...]:
        """What was found of it in its open incident, and in those that an operator has let go of since: no rule finds the same
        process a second time by the same, or a release would not outlive a reload."""
        return tuple(f for i in self.incidents.of_cgroup(w.cgroup) for f in i.findings)

    async def kill_process(self, w: Workload, command: KillProcess) -> None:
        incident = self.incident_of(w, command.reason)
        self.receipt(await self.switch.kill_process(command), w, incident)

    async def reconcile(self) -> None:
        """Compare what is wanted with what is, repair, and tell of it. A cgroup that went away unseen is found out here."""
        await self.host.reconcile()
        for w in self.workloads:
            if not self.path_of(w.cgroup).is_dir():
                self.gone(w.id)
            else:
                self.places.look(w)
        self.upkeep.look()
        if len(self.workloads) and (self._guarding is None or self._guarding.done()):
            self._guarding = self.spawn(self.switch.guard_devices(), "guarding devices")  # not to hold up the repairs
        # Of one whose release is under way, what is desired is known when that is done.
        desired = {w.id: w.due for w in self.workloads if w.desired != FREE and not self._releasing[w.id]}
        if not desired:
            return
        for receipt in await self.switch.reconcile(desired):
            if repaired := self.workloads.get(receipt.workload):
                log.warning(
                    "containment had slipped and was repaired %s", fields(workload=repaired.name, step=receipt.step)
                )
                self.receipt(receipt, repaired, self.incidents.get(repaired.incident))

    async def release(self, w: Workload, stage: str, reason: str) -> list[Receipt]:
        incident = self.incidents.get(w.incident)
        self._releasing[w.id] += 1
        try:
            receipts = await self.switch.release(self.ref(w), stage, on_receipt=lambda r: self.receipt(r, w, incident))
            w.desired = self.plane.containment(w.id)
        finally:
            self._releasing -= Counter((w.id,))
        self.records.desired(w, reason)
        if w.desired == FREE and all(r.outcome is Outcome.DONE for r in receipts):
            self.spending.released(w.cgroup)
            self.close_incident(w)
        return receipts

    def close_incident(self, w: Workload) -> None:
        incident = self.incidents.get(w.incident)
        w.incident = ""
        if incident:
            self.let_go(incident)
        self.tell(Released(time.monotonic_ns(), w.id))

    def let_go(self, incident: Incident) -> None:
        """Its workload was released: its programs are no longer looked for elsewhere either."""
        self.close(incident)
        if self.continuing:
            self.continuing.forget(incident.id, "its incident was released")

    def close(self, incident: Incident) -> None:
        if not incident.closed_unix:
            incident.closed_unix = time.time()
            self.records.incident(incident)
            log.warning("incident closed %s", fields(incident=incident.id, workload=incident.workload_name))

    def receipt(self, receipt: Receipt, w: Workload, incident: Incident | None) -> None:
        """Every receipt goes to the incident, the ledger, the log and who follows."""
        incident_id = incident.id if incident else ""
        if incident:
            incident.add_receipt(receipt)
            if receipt.step is Step.CAPTURE and receipt.outcome is Outcome.DONE:
                incident.evidence = str(self.config.evidence_dir / incident.id)
                self.records.incident(incident)
        self.records.receipt(receipt, incident_id)
        self.streams.publish(StreamItem(receipt=receipt, incident=incident_id, workload_name=w.name), w.id)
        log.log(
            logging.INFO if receipt.outcome is Outcome.DONE else logging.ERROR,
            "receipt %s",
            fields(
                step=receipt.step,
                outcome=receipt.outcome,
                workload=w.name,
                incident=incident_id,
                # A step may tell of milliseconds of its own; in this line it is how long the step took.
                **{**receipt.proof, "ms": f"{(receipt.finished_ns - receipt.started_ns) / 1e6:.2f}"},
                error=receipt.error,
            ),
        )

    def observed(self, w: Workload) -> Containment:
        """What the kernel says now; what is gone is terminated."""
        try:
            return self.switch.observe(self.ref(w))
        except Gone:
            return Containment(terminated=True)
