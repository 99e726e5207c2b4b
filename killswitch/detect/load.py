"""Which processes are busy, whose code is to be read, and what the reading said: what stands between ``Cpu`` and ``Code``.

Reading code costs a look into the process's memory and a disassembly (about a millisecond), so it is rationed: only a
process that kept half a CPU busy for two windows in a row, each at most every four seconds, at most two in a window.
When there are more busy processes than that allows, the pause is stretched so that every one has its turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from killswitch.detect.hashing import Score, score
from killswitch.events import Code, Cpu

BUSY_CORES = 0.5
BUSY_WINDOWS = 2
READ_EVERY_NS = 4_000_000_000
READS_A_WINDOW = 2
VALID_NS = 15_000_000_000  # a score is believed this long (longer, when the pause had to be stretched)
MAX_HOT = 96  # addresses in one request
MAX_ADDRESSES = 512  # remembered between two requests
SCORES = 3  # the score is the mean of this many readings: one odd sample decides nothing


@dataclass(slots=True)
class Load:
    """One process."""

    seen_ns: int = 0
    busy: int = 0  # windows in a row
    kernel_share: float = 0.0
    hot: dict[int, int] = field(default_factory=dict)  # address -> samples since the last request
    asked_hot: tuple[tuple[int, int], ...] = ()
    asked_ns: int | None = None
    code: Code | None = None
    scores: list[Score] = field(default_factory=list)
    scored_ns: int = 0
    renewed: bool = False  # runs another program since the last reading


class LoadTable:
    """All processes of all workloads, by (pid, start_ticks)."""

    def __init__(self) -> None:
        self._loads: dict[tuple[int, int], Load] = {}
        self._window_ns = 0  # when the present window began, for the ration
        self._reads = 0
        self._busy_now = 0
        self._busy_before = 0

    def __len__(self) -> int:
        return len(self._loads)

    def cpu(self, event: Cpu, *, wanted: bool) -> tuple[tuple[int, int], ...]:
        """Note one window. The addresses to read now, hottest first; empty when it is not this process's turn."""
        load = self._loads.get((event.pid, event.start_ticks))
        busy = event.cores >= BUSY_CORES
        if load is None:
            if not busy:
                return ()
            load = self._loads[(event.pid, event.start_ticks)] = Load()
        if event.time_ns - load.seen_ns > event.window_ns * 3 // 2:
            load.busy = 0  # it slept in between
        load.seen_ns = event.time_ns
        load.busy = load.busy + 1 if busy else 0
        load.kernel_share = event.kernel_share
        for address, samples in event.hot:
            if address in load.hot or len(load.hot) < MAX_ADDRESSES:
                load.hot[address] = load.hot.get(address, 0) + samples
        if event.time_ns - self._window_ns > event.window_ns // 2 or event.time_ns < self._window_ns:
            self._window_ns, self._reads = event.time_ns, 0
            self._busy_before, self._busy_now = self._busy_now, 0
        if load.busy < BUSY_WINDOWS or not wanted:
            return ()
        self._busy_now += 1
        if self._reads >= READS_A_WINDOW or not load.hot:
            return ()
        if load.asked_ns is not None and 0 <= event.time_ns - load.asked_ns < self._pause(event.window_ns):
            return ()
        self._reads += 1
        load.asked_ns = event.time_ns
        load.asked_hot = representative(load.hot, MAX_HOT)
        load.hot.clear()
        return load.asked_hot

    def _pause(self, window_ns: int) -> int:
        return max(READ_EVERY_NS, self._busy_before * window_ns // READS_A_WINDOW)

    def code(self, event: Code) -> Score | None:
        """Judge what was read. None when the process is not known (any more)."""
        load = self._loads.get((event.pid, event.start_ticks))
        if load is None:
            return None
        if load.renewed:
            load.scores.clear()
            load.code, load.renewed = None, False
        verdict = score(event, load.code, kernel_share=load.kernel_share)
        load.code = event
        load.scores = [*load.scores[1 - SCORES :], verdict]
        load.scored_ns = event.time_ns
        return verdict

    def hashing(self, event: Cpu) -> float | None:
        """``cpu.hashing`` for this window; None when there is no reading that is still to be believed."""
        load = self._loads.get((event.pid, event.start_ticks))
        if load is None or not load.scores:
            return None
        if event.time_ns - load.scored_ns > max(VALID_NS, 3 * self._pause(event.window_ns)):
            return None
        return sum(s.value for s in load.scores) / len(load.scores)

    def reasons(self, pid: int, start_ticks: int) -> str:
        load = self._loads.get((pid, start_ticks))
        return load.scores[-1].told if load is not None and load.scores else ""

    def hot(self, pid: int, start_ticks: int) -> tuple[tuple[int, int, int], ...]:
        """(pid, address, samples) of the code that was judged last."""
        load = self._loads.get((pid, start_ticks))
        return tuple((pid, address, samples) for address, samples in load.asked_hot) if load is not None else ()

    def exec(self, pid: int, start_ticks: int) -> None:
        """Another program: to be read afresh at once. Until then the old score stands, so that a program which runs
        itself anew every few seconds cannot shake it off."""
        load = self._loads.get((pid, start_ticks))
        if load is not None:
            load.hot.clear()
            load.asked_ns, load.renewed = None, True

    def forget(self, pid: int, start_ticks: int) -> None:
        self._loads.pop((pid, start_ticks), None)

    def prune(self, now: int) -> None:
        """Drop who has not been busy for long: an exit may have been lost."""
        for key in [k for k, load in self._loads.items() if now - load.seen_ns > 4 * VALID_NS]:
            del self._loads[key]


def representative(hot: Mapping[int, int], limit: int) -> tuple[tuple[int, int], ...]:
    """At most ``limit`` of these (address -> samples), hottest first, with samples that add up to about the same.

    Not the hottest ones: in code that is unrolled, as hashes are, each address is sampled but once or twice, and the
    hottest few are those of the small loops around it. So it is every n-th *sample* that is taken, in order of address.
    """
    if len(hot) <= limit:
        return tuple(sorted(hot.items(), key=lambda item: (-item[1], item[0])))
    total = sum(hot.values())
    taken: dict[int, int] = {}
    seen = picked = 0
    for address in sorted(hot):
        seen += hot[address]
        upto = seen * limit // total  # of the picks, how many lie at or before this address
        if upto > picked:
            taken[address] = max(1, (upto - picked) * total // limit)
            picked = upto
    return tuple(sorted(taken.items(), key=lambda item: (-item[1], item[0])))
