"""Sampled addresses with what lay there, collected until there is enough to judge."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, TypeVar

from killswitch.events import Cpu
from killswitch.machinecode import CodeBlock

MAX_HOT = 96  # addresses in one reading
MAX_ADDRESSES = 256  # remembered between two readings
FEW = 4  # addresses: of a loop that waits at them, what follows them is little
UNKNOWN_MAPPING = "?"  # which file the code is of, or whether of any, was not looked up

K = TypeVar("K", bound=Hashable)


class Samples:
    """Of one process (by address), or of many (by process and address)."""

    __slots__ = ("_code", "_met", "kernel", "total")

    def __init__(self) -> None:
        self._met: dict[tuple[int, int], int] = {}
        self._code: dict[tuple[int, int], bytes] = {}
        self.total = 0.0  # all samples, those in the kernel and those that are not kept included
        self.kernel = 0.0

    def add(self, event: Cpu, samples: float) -> None:
        """``samples``: how many this window had."""
        self.total += samples
        self.kernel += samples * event.kernel_share
        code = event.code if len(event.code) == len(event.hot) else (b"",) * len(event.hot)
        for (address, met), there in zip(event.hot, code, strict=True):
            key = event.pid, address
            if key in self._met or len(self._met) < MAX_ADDRESSES:
                self._met[key] = self._met.get(key, 0) + met
                if there:
                    self._code[key] = there

    def merge(self, other: Samples) -> None:
        self.total += other.total
        self.kernel += other.kernel
        for key, met in other._met.items():
            if key in self._met or len(self._met) < MAX_ADDRESSES:
                self._met[key] = self._met.get(key, 0) + met
                if key in other._code:
                    self._code[key] = other._code[key]

    def clear(self) -> None:
        self._met.clear()
        self._code.clear()
        self.total = self.kernel = 0.0

    def __bool__(self) -> bool:
        return bool(self._met)

    @property
    def kernel_share(self) -> float:
        return self.kernel / self.total if self.total else 0.0

    def chosen(self) -> tuple[tuple[tuple[int, int], ...], tuple[bytes, ...]]:
        """((address, samples), …), hottest first, and what lay at each of them (b"" = not known): they stand for all."""
        keys = representative(self._met, MAX_HOT)
        return tuple((address, met) for (_, address), met in keys), tuple(self._code.get(key, b"") for key, _ in keys)

    @property
    def waits(self) -> bool:
        """Most of it falls on very few addresses: the CPU waits there, for memory as a rule."""
        return 2 * sum(sorted(self._met.values())[-FEW:]) >= sum(self._met.values())

    def blocks(self) -> tuple[CodeBlock, ...]:
        """The same as blocks of code, those that are known."""
        return tuple(_blocks(*self.chosen()))


def _blocks(hot: tuple[tuple[int, int], ...], code: tuple[bytes, ...]) -> Iterator[CodeBlock]:
    for (address, met), there in zip(hot, code, strict=True):
        if there:
            yield CodeBlock(address, met, there, UNKNOWN_MAPPING)


def representative(hot: Mapping[Any, int], limit: int) -> tuple[tuple[Any, int], ...]:
    """At most ``limit`` of these (address -> samples), hottest first, with samples that add up to about the same.

    Not the hottest ones: in code that is unrolled, as hashes are, each address is sampled but once or twice, and the
    hottest few are those of the small loops around it. So it is every n-th *sample* that is taken, in order of address.
    """
    if len(hot) <= limit:
        return tuple(sorted(hot.items(), key=lambda item: (-item[1], item[0])))
    total = sum(hot.values())
    taken: dict[Any, int] = {}
    seen = picked = 0
    for address in sorted(hot):
        seen += hot[address]
        upto = seen * limit // total  # of the picks, how many lie at or before this address
        if upto > picked:
            taken[address] = max(1, (upto - picked) * total // limit)
            picked = upto
    return tuple(sorted(taken.items(), key=lambda item: (-item[1], item[0])))
