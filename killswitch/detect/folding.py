"""Folding of like findings, so that a flood of matches (a fork bomb of forbidden programs) gives a trickle of findings.

For each rule of a workload: the first finding comes out at once. What follows within a second is counted, not shown;
when the second is over, the latest of them comes out, with the count. As long as it is one process that repeats itself,
the pause doubles up to a minute. Only what is *shown* is folded; the responses to each match are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from killswitch.commands import Finding

PAUSE_NS = 1_000_000_000
MAX_PAUSE_NS = 60_000_000_000


@dataclass(slots=True)
class _Fold:
    shown_ns: int
    pause_ns: int
    process: tuple[int, int]
    held: Finding | None = None  # the latest of those not shown
    weight: int = 0  # of the one that is held
    more: int = 0  # occurrences not shown besides it

    @property
    def due_ns(self) -> int:
        return self.shown_ns + self.pause_ns


class Folder:
    """One for each workload; as many entries as the workload's rules can fill."""

    __slots__ = ("_folds",)

    def __init__(self) -> None:
        self._folds: dict[tuple[str, str], _Fold] = {}

    def offer(self, finding: Finding, *, key: str = "", weight: int = 1) -> Finding | None:
        """The finding to show now, or None. ``weight``: how many occurrences this one stands for."""
        now = finding.time_ns
        process = (finding.pid, finding.start_ticks)
        fold = self._folds.get((finding.policy, key or finding.rule))
        if fold is None:
            self._folds[(finding.policy, key or finding.rule)] = _Fold(now, PAUSE_NS, process)
            return finding
        if process != fold.process:
            fold.process = process
            fold.pause_ns = PAUSE_NS
        fold.more += fold.weight
        fold.held, fold.weight = finding, weight
        if now < fold.due_ns:
            return None
        return self._show(fold, now)

    def flush(self, now: int, *, all_of_them: bool = False) -> Iterator[Finding]:
        """What has waited long enough; entries that have been quiet are dropped."""
        for key, fold in list(self._folds.items()):
            if fold.held is not None:
                if all_of_them or now >= fold.due_ns:
                    yield self._show(fold, now)
            elif now >= fold.due_ns + PAUSE_NS:
                del self._folds[key]

    @staticmethod
    def _show(fold: _Fold, now: int) -> Finding:
        finding, more = fold.held, fold.more
        assert finding is not None
        since = now - fold.shown_ns
        # quiet for as long as the pause: a new bout, with the short pause again
        fold.pause_ns = min(fold.pause_ns * 2, MAX_PAUSE_NS) if since < 2 * fold.pause_ns else PAUSE_NS
        fold.shown_ns, fold.held, fold.weight, fold.more = now, None, 0, 0
        if not more:
            return finding
        return replace(finding, summary=f"{finding.summary} (and {more} more like it in {since / 1e9:.1f} s)")
