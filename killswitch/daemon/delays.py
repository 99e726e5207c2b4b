"""How long programs wait from exec until they are judged: the last of them, as percentiles."""

from __future__ import annotations

from collections import deque

KEPT = 2048


class Last:
    """The last so many of them, in nanoseconds."""

    def __init__(self, kept: int = KEPT) -> None:
        self._values: deque[int] = deque(maxlen=kept)

    def add(self, ns: int) -> None:
        self._values.append(ns)

    def percentiles(self) -> tuple[float, float]:
        """(p50, p99) in milliseconds by nearest rank; 0 when there are none."""
        ordered = sorted(self._values)
        if not ordered:
            return 0.0, 0.0
        p50, p99 = (ordered[-(-len(ordered) * share // 100) - 1] / 1e6 for share in (50, 99))
        return p50, p99


class Delays:
    def __init__(self) -> None:
        self.usual = Last()  # judged in their turn, or said to be judged late
        self.late = Last()  # files had to be read, or something was to be done about them
