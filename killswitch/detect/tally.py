"""CPU time over the last minutes, and how much of it was hashing: pauses, a low priority, a crowded host cannot hide that."""

from __future__ import annotations

from collections import deque

SPAN_NS = 600_000_000_000  # "in the last ten minutes"
RECENT_NS = 30_000_000_000
BUCKET_NS = 5_000_000_000
HASHING_FROM = 0.5  # CPU time of this score and more is hashing


class Tally:
    """Of one process, or of all that a workload runs. Bounded: 121 buckets."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: deque[list[float]] = deque()  # [number, CPU time, of that hashing, CPU time times score], ns

    def add(self, time_ns: int, cpu_ns: float, score: float) -> None:
        number = time_ns // BUCKET_NS
        if not self._buckets or number > self._buckets[-1][0]:
            self._buckets.append([number, 0.0, 0.0, 0.0])
        bucket = self._buckets[-1]
        bucket[1] += cpu_ns
        bucket[2] += cpu_ns if score >= HASHING_FROM else 0.0
        bucket[3] += cpu_ns * score
        while self._buckets[0][0] <= number - SPAN_NS // BUCKET_NS:
            self._buckets.popleft()

    def seconds(self, now: int) -> float:
        """CPU-seconds of hashing in the last ten minutes."""
        since = (now - SPAN_NS) // BUCKET_NS
        return sum(b[2] for b in self._buckets if b[0] > since) / 1e9

    def score(self, now: int) -> float | None:
        """The mean score of the last half minute, each second of CPU time weighing alike. None = nothing ran."""
        since = (now - RECENT_NS) // BUCKET_NS
        recent = [b for b in self._buckets if b[0] >= since]
        cpu = sum(b[1] for b in recent)
        return sum(b[3] for b in recent) / cpu if cpu > 0 else None
