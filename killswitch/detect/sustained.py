"""``for:`` of a rule: a condition that has to hold for a time, with hysteresis.

The condition is known in windows (``Cpu`` events: one process, one window each). Looked at is always the last ``for`` of
time, the *span*. A finding is due when

* the span is filled: the condition first held at least ``for`` ago, and no dip since then was longer than the longest
  dip that is forgiven: a fifth of ``for``, but never more than 30 s nor less than 2 s; and
* it held in at least 80 % of the span (``HOLD_SHARE``), and holds in this very window.

Time without a window (the process slept, so it was not sampled) counts as time in which the condition did not hold; a
gap of up to half a window is jitter of the clock and counts for nothing. A longer dip starts everything anew. One
episode gives one finding: the next one can come only after the episode has ended, by a dip that is too long or because
the condition held in less than half of the span (``LET_GO_SHARE``). Time that runs backwards by less than 10 s is ignored
(windows that overlap are counted once); by more, or forwards by more than the longest dip, it starts anew.

``for: 0`` gives a finding at the first window that holds.
"""

from __future__ import annotations

from collections import deque

HOLD_SHARE = 0.8
LET_GO_SHARE = 0.5
DIP_SHARE = 0.2
MIN_DIP_NS = 2_000_000_000
MAX_DIP_NS = 30_000_000_000
BACKWARDS_NS = 10_000_000_000
SEGMENTS = 64  # a span is kept at this resolution, however short the windows are: bounded memory


class Sustained:
    """The state of one rule for one process."""

    __slots__ = ("_dip", "_end", "_fired", "_held", "_longest_dip", "_segments", "_total", "began_ns", "for_ns")

    def __init__(self, for_ns: int) -> None:
        self.for_ns = for_ns
        self._longest_dip = max(MIN_DIP_NS, min(int(for_ns * DIP_SHARE), MAX_DIP_NS))
        self._segments: deque[list[int]] = deque()  # [length, of which the condition held], nanoseconds
        self._clear()

    def _clear(self) -> None:
        self._segments.clear()
        self._total = 0  # length of all segments
        self._held = 0  # of which held
        self._dip = 0  # how long it has not held just now
        self._end = 0
        self._fired = False
        self.began_ns = 0

    @property
    def idle(self) -> bool:
        """Nothing is held; the state may be dropped."""
        return not self._segments

    @property
    def found(self) -> bool:
        """A finding has come of this episode, which goes on."""
        return self._fired

    @property
    def last_ns(self) -> int:
        return self._end

    def feed(self, time_ns: int, window_ns: int, holds: bool) -> bool:
        """One window that ended at ``time_ns``. True when a finding is due."""
        if self._segments and time_ns < self._end - BACKWARDS_NS:
            self._clear()
        start = time_ns - window_ns
        if self._segments:
            if time_ns <= self._end:
                return False
            gap = start - self._end
            if gap > window_ns // 2:
                self._add(gap, False)
            else:
                start = self._end  # jitter, or an overlap
        if not self._segments:
            if not holds:
                return False
            self.began_ns = start
        self._add(time_ns - start, holds)
        if not self._segments:  # the dip that has just ended it
            if not holds:
                return False
            self.began_ns = start
            self._add(time_ns - start, True)
        self._end = time_ns
        share = self._share()
        if self._fired:
            self._fired = share >= LET_GO_SHARE
            return False
        if holds and self._total >= self.for_ns and share >= HOLD_SHARE:
            self._fired = True
            return True
        return False

    def _add(self, length: int, holds: bool) -> None:
        self._dip = 0 if holds else self._dip + length
        if self._dip > self._longest_dip:
            self._clear()
            return
        held = length if holds else 0
        segments = self._segments
        if segments and segments[-1][0] + length <= self.for_ns // SEGMENTS:
            segments[-1][0] += length
            segments[-1][1] += held
        else:
            segments.append([length, held])
        self._total += length
        self._held += held
        while self._total - segments[0][0] >= self.for_ns and len(segments) > 1:
            gone = segments.popleft()
            self._total -= gone[0]
            self._held -= gone[1]

    def _share(self) -> float:
        """Of the span, how much held. The oldest segment counts only with the part that lies inside the span."""
        oldest = self._segments[0]
        outside = max(0, min(self._total - self.for_ns, oldest[0])) if len(self._segments) > 1 else 0
        total = self._total - outside
        return (self._held - oldest[1] * outside / oldest[0]) / total if total > 0 else 0.0
