"""The budget of automatic kills, kept in step: the engine's account, the kernel's, which acts on its own, and the ledger's,
which outlives both."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from killswitch.config import Config
from killswitch.daemon.log import fields
from killswitch.detect.budget import Budget
from killswitch.ledger import ChargeRecord
from killswitch.policy.limits import Limits, limits

if TYPE_CHECKING:
    from killswitch.daemon.core import Core

log = logging.getLogger("killswitch.budget")


def configured(config: Config) -> Limits:
    return Limits(config.budget_contained, int(config.budget_seconds * 1e9), config.budget_share)


class Spending:
    def __init__(self, core: Core) -> None:
        self._core = core
        self.budget = Budget(configured(core.config))
        self._kept: dict[str, int] = {}  # as the ledger has it
        self._marked: frozenset[int] = frozenset()  # workloads that the kernel has been told are charged
        self._seen = -1  # changes of the budget that were carried over
        self._tight = False
        self._recall()

    def _recall(self) -> None:
        """What an earlier daemon spent, and the kernel while there was none. Times are kept by the clock on the wall: one
        that was set back makes a charge young, none makes it younger than now."""
        now, unix = time.monotonic_ns(), time.time()
        for cgroup, record in self._core.records.charges().items():
            age_ns = max(0, int((unix - record.time_unix) * 1e9))
            self.budget.charge(cgroup, now - age_ns)
            self._kept[cgroup] = now - age_ns

    def policies_changed(self) -> None:
        """Others are in force: the strictest of their budgets, or the configuration's, holds from now on."""
        compiled = self._core.compiled
        self.budget.limits = limits(compiled.policies if compiled else (), configured(self._core.config))
        self.sync()

    def spent(self) -> None:
        """Something may have been, just now."""
        if self.budget.changes != self._seen:
            self.sync()

    def sync(self) -> None:
        """Take up what verdicts have spent since, and tell the kernel what is left. Cheap while nothing has changed."""
        core, budget, now = self._core, self.budget, time.monotonic_ns()
        spent, hit = core.plane.charges()
        for number in hit - self._marked:
            if w := core.workloads.get(number):
                budget.charge(w.cgroup, now)
        charged = budget.charged(now)
        ids = frozenset(w.id for w in core.workloads if w.cgroup in charged)
        left = None if budget.limits.none else budget.left(now, len(core.workloads))
        core.plane.allow_kills(spent, left, charged=ids - hit, refunded=self._marked - ids)
        self._marked = ids
        if budget.changes != self._seen:
            self._seen = budget.changes
            self._keep(dict(charged), now)
        self._tell(now)

    def _keep(self, charged: dict[str, int], now: int) -> None:
        for cgroup in self._kept.keys() - charged.keys():
            self._core.records.charge_forgotten(cgroup, "it no longer counts")
        for cgroup in charged.keys() - self._kept.keys():
            self._core.records.charge(ChargeRecord(cgroup, time.time() - (now - charged[cgroup]) / 1e9))
        self._kept = charged

    def _tell(self, now: int) -> None:
        tight = bool(self.budget.withheld(now))
        if tight and not self._tight:
            log.critical("automatic kills are withheld: %s; rules only monitor, orders are carried out", self.detail())
        elif self._tight and not tight:
            log.warning("rules act again: %s", self.detail())
        self._tight = tight

    # --- what operators do ---

    def released(self, cgroup: str) -> None:
        self.budget.refund(cgroup)
        self.sync()

    def reset(self) -> None:
        log.warning("the budget of automatic kills is reset %s", fields(charged=len(self._kept)))
        self.budget.reset()
        self.sync()

    # --- what they see ---

    @property
    def withheld(self) -> tuple[str, ...]:
        """Names of the workloads that rules would have hit, and did not, lately."""
        names = {w.cgroup: w.name for w in self._core.workloads}
        return tuple(names.get(c, c) for c in self.budget.withheld(time.monotonic_ns()))

    def detail(self) -> str:
        budget, now, watched = self.budget, time.monotonic_ns(), len(self._core.workloads)
        if budget.limits.none:
            return "automatic kills have no budget"
        used, most = len(budget.charged(now)), budget.limits.most(watched)
        told = f"{used} of {most} automatic kills in {budget.limits.per_ns / 1e9:g} s are used"
        if not self.withheld:
            return told
        names = ", ".join(self.withheld[:5]) + (", …" if len(self.withheld) > 5 else "")
        seconds = budget.room_ns(now, watched) / 1e9
        return (
            f"{told}, and rules only monitor for {seconds:.0f} s more: nothing was done to {names}; look at their incidents, "
            "kill by hand what is rogue, release what is not"
        )
