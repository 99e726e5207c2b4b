"""How many workloads rules may hit by themselves: a rule that is wrong everywhere at once must not stop everything.

Who is hit (contained, or a process of it killed) is charged, once. Within ``Limits.per_ns`` so many may be; past that, rules
that would hit another one only monitor, until charges have grown old, were refunded, or an operator resets them. What is
charged already, or contained already by whomever, is acted on whatever is left: what rules have begun they go on with. Orders
of operators are no business of this.
"""

from __future__ import annotations

from collections.abc import Mapping

from killswitch.policy.limits import Limits


class Budget:
    """By cgroup path: a workload that is made again in the same place is the same. Times are of CLOCK_MONOTONIC, in ns."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(share=1.0)  # nobody has said anything of a limit
        self.changes = 0  # counts up whenever charges do or do not stand as they did
        self._charged: dict[str, int] = {}  # cgroup -> when it was first hit
        self._withheld: dict[str, int] = {}  # cgroup -> when something was last withheld from it

    def charge(self, cgroup: str, now: int) -> None:
        """It was hit, be there anything left or not: the data plane was there first, or an earlier daemon."""
        if cgroup not in self._charged:
            self._charged[cgroup] = now
            self.changes += 1
        if self._withheld.pop(cgroup, None) is not None:
            self.changes += 1

    def take(self, cgroup: str, now: int, watched: int) -> bool:
        """Whether a rule may hit this workload now, of so many that are watched; if so, it is charged."""
        if cgroup not in self.charged(now) and not self.limits.none and self.left(now, watched) <= 0:
            self._withheld[cgroup] = now
            self.changes += 1
            return False
        self.charge(cgroup, now)
        return True

    def left(self, now: int, watched: int) -> int:
        """How many more workloads may be hit."""
        return max(0, self.limits.most(watched) - len(self.charged(now)))

    def charged(self, now: int) -> Mapping[str, int]:
        """Cgroup -> when it was hit, of those that count."""
        self._forget(self._charged, now)
        return self._charged

    def withheld(self, now: int) -> Mapping[str, int]:
        """Cgroup -> when something was last withheld from it, within the time that counts."""
        self._forget(self._withheld, now)
        return self._withheld

    def room_ns(self, now: int, watched: int) -> int:
        """How long until another workload may be hit; 0 = now."""
        if self.limits.none or self.left(now, watched) > 0:
            return 0
        times = sorted(self.charged(now).values())
        must_go = len(times) - self.limits.most(watched)
        return max(0, times[must_go] + self.limits.per_ns - now) if must_go < len(times) else self.limits.per_ns

    def refund(self, cgroup: str) -> None:
        """An operator has released it: that was no kill that should count against others."""
        self.changes += (self._charged.pop(cgroup, None) is not None) + (self._withheld.pop(cgroup, None) is not None)

    def reset(self) -> None:
        """Forget all of it, at an operator's word."""
        self._charged.clear()
        self._withheld.clear()
        self.changes += 1

    def _forget(self, what: dict[str, int], now: int) -> None:
        old = [cgroup for cgroup, then in what.items() if now - then >= self.limits.per_ns]
        for cgroup in old:
            del what[cgroup]
        self.changes += bool(old)
