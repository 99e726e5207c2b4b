"""The hold, from user space: how far execs have been judged, and which ones are judged later than in their turn.

The data plane lets nothing leave of a process before what it waits for (``bpf/hold.h``). Publishing that all execs up to a
position are judged is one store; only what is judged late costs a system call or two.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections import Counter, OrderedDict

from killswitch.errors import KernelError
from killswitch.events import Exec
from killswitch.kernel import abi, loader
from killswitch.kernel.maps import Map, store_u32, store_u64

_JUDGED_AT, _LATE_AT, _LOST_AT, _LOST_JUDGED_AT, _PATIENCE_AT, _SYN_RETRY_AT = (
    abi.CONTROL.offset(name) for name in ("judged", "late", "lost", "lost_judged", "patience_ns", "syn_retry")
)
_UNHELD_AT, _UNHELD_JUDGED_AT = abi.WORKLOAD.offset("unheld"), abi.WORKLOAD.offset("unheld_judged")
_LATE, _CONDEMNED, _LOST = (state.to_bytes(4, "little") for state in abi.Unjudged)

CONDEMNED_NS = 20 * 60 * 1_000_000_000  # TCP gives up what nobody acknowledges after a quarter of an hour
MAX_CONDEMNED = 8192
PATIENCE_NS = 3_000_000  # longer than judging takes 99 times out of 100, also when files are read; shorter than a tick
SYN_RETRY_NS = 10_000_000
_CLOCK_MONOTONIC_COARSE = 6  # its resolution is the kernel's tick


def identity(event: Exec) -> int:
    """The number of an exec: the twin of ``unjudged_id`` in ``bpf/hold.h``."""
    return event.time_ns ^ event.pid << 42 & (1 << 64) - 1


class Holds:
    """Of one data plane. Not thread-safe."""

    def __init__(self, loaded: loader.Loaded) -> None:
        self._loaded = loaded
        self._control = loaded.mapped("control").memory
        self._holds, self._unjudged = loaded.maps["holds"], loaded.maps["unjudged"]
        self._late: Counter[int] = Counter()  # exec -> how many judgements of it are under way
        self._condemned: OrderedDict[int, int] = OrderedDict()  # exec -> since when
        self._left: set[int] = set()  # what an earlier daemon has left, to be judged by what runs
        self._take_up()
        # Who waits in the kernel keeps its CPU, so there has to be another for who judges.
        store_u32(self._control, _PATIENCE_AT, PATIENCE_NS if (os.cpu_count() or 1) > 1 else 0)
        tick = time.clock_getres(_CLOCK_MONOTONIC_COARSE)
        store_u32(self._control, _SYN_RETRY_AT, max(1, round(SYN_RETRY_NS / 1e9 / tick)))

    # --- what is judged -----------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Up to which execs are judged."""
        return int(struct.unpack_from("<Q", self._control, _JUDGED_AT)[0])

    def publish(self, position: int) -> None:
        """All execs before this position in the ring are judged, or were said to be judged late."""
        store_u64(self._control, _JUDGED_AT, position)

    def keep(self, event: Exec) -> None:
        """Its judgement takes longer: it stays held when its turn is over, until as many ``settle``. Raises KernelError when
        there is no room."""
        number = identity(event)
        if number not in self._late and number not in self._condemned:
            self._unjudged.put(_u64(number), _LATE)
        self._late[number] += 1
        self._count()

    def settle(self, event: Exec) -> None:
        """One judgement that it was kept for is given."""
        number = identity(event)
        self._late[number] -= 1
        if self._late[number] <= 0:
            del self._late[number]
            if number not in self._condemned:
                self._unjudged.delete(_u64(number))
        self._count()

    def condemn(self, event: Exec) -> None:
        """It was judged, and is to be killed: nothing that it has sent is ever to leave, also from sockets that outlive it."""
        number, now = identity(event), time.monotonic_ns()
        self._unjudged.put(_u64(number), _CONDEMNED)
        self._condemned[number] = now
        while len(self._condemned) > MAX_CONDEMNED or now - next(iter(self._condemned.values())) > CONDEMNED_NS:
            old, _ = self._condemned.popitem(last=False)
            self._unjudged.delete(_u64(old))
        self._count()

    @property
    def late(self) -> int:
        """Programs whose judgement goes on now."""
        return len(self._late) + len(self._left)

    def _count(self) -> None:
        store_u32(self._control, _LATE_AT, len(self._late) + len(self._condemned) + len(self._left))

    # --- what nobody was told of ----------------------------------------------------------------------------------------

    def untold(self) -> Untold:
        """Execs that there was no room to tell of, and that had no place of their own to be held by; None of either: falsy.
        Hand it to ``told`` when what runs has been judged."""
        lost = self._u32(_LOST_AT)
        numbers: tuple[int, ...] = ()
        if lost != self._u32(_LOST_JUDGED_AT):
            numbers = tuple(int.from_bytes(k, "little") for k, v in self._unjudged.items() if v == _LOST)
        memory, size = self._loaded.mapped("workloads").memory, self._loaded.mapped("workloads").value_size
        unheld = {}
        for slot in self._loaded.slots().values():
            count, judged = struct.unpack_from("<II", memory, slot * size + _UNHELD_AT)
            if count != judged:
                unheld[slot] = count
        return Untold(lost, numbers, unheld)

    def told(self, untold: Untold) -> None:
        for number in untold.numbers:
            self._unjudged.delete(_u64(number))
        store_u32(self._control, _LOST_JUDGED_AT, untold.lost)
        workloads = self._loaded.mapped("workloads")
        for slot, count in untold.unheld.items():
            store_u32(workloads.memory, slot * workloads.value_size + _UNHELD_JUDGED_AT, count)

    def _u32(self, at: int) -> int:
        return int(struct.unpack_from("<I", self._control, at)[0])

    # --- what an earlier daemon has left --------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """What was held when the last daemon went stays held, whatever is published, until ``left_is_judged``: its events
        may have been read and not judged."""
        position = self.position
        for key, state in self._unjudged.items():
            number = int.from_bytes(key, "little")
            if state == _CONDEMNED:
                self._condemned[number] = time.monotonic_ns()
            elif state == _LATE:
                self._left.add(number)
        for _, value in self._holds.items():
            _, waits_for, *numbers, _ = abi.HOLD.codec.unpack(value)
            if waits_for > position:
                self._left.update(number for number in numbers if number)
        for number in self._left:
            self._unjudged.put(_u64(number), _LATE)
        self._count()

    @property
    def left(self) -> int:
        """How many programs an earlier daemon has left unjudged."""
        return len(self._left)

    def left_is_judged(self) -> None:
        """What runs has been judged: what was left is held no longer."""
        for number in self._left - self._late.keys() - self._condemned.keys():
            self._unjudged.delete(_u64(number))
        self._left.clear()
        self._count()


class Untold:
    """Execs that nobody was told of, as of one moment."""

    def __init__(self, lost: int, numbers: tuple[int, ...], unheld: dict[int, int]) -> None:
        self.lost, self.numbers, self.unheld = lost, numbers, unheld

    def __bool__(self) -> bool:
        return bool(self.numbers or self.unheld)


def carry_over(old: loader.Loaded, new: loader.Loaded) -> None:
    """What is held by an older generation is held by the new one, which has a ring of its own: not by position."""
    if "holds" not in old.maps:
        return
    if (old.maps["holds"].value_size, old.maps["holds"].key_size) != (abi.HOLD.size, 4):
        raise KernelError("take over what is held", errno.EINVAL, "it is kept in another shape")
    judged = struct.unpack_from("<Q", old.mapped("control").memory, _JUDGED_AT)[0]
    unjudged, holds = new.maps["unjudged"], new.maps["holds"]
    for number, state in old.maps["unjudged"].items():
        unjudged.put(number, _LATE if state == _LOST else state)
    for pid, value in old.maps["holds"].items():
        start, position, *numbers, crowded = abi.HOLD.codec.unpack(value)
        if position > judged:
            _keep_all(unjudged, numbers)
        if holds.get(pid) is None:
            holds.put(pid, abi.HOLD.codec.pack(start, 0, *numbers, crowded))
    store_u32(new.mapped("control").memory, _LATE_AT, len(unjudged.all_keys()))


def _keep_all(unjudged: Map, numbers: list[int]) -> None:
    for number in numbers:
        if number and unjudged.get(_u64(number)) is None:
            unjudged.put(_u64(number), _LATE)


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
