"""What the kernel's verdicts must not do: hit who is protected, sever who lives with one, or go past the budget of automatic
kills. See ``bpf/restraint.h``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from killswitch.kernel import abi, loader
from killswitch.kernel.maps import Mapped, store_u64

_SHIELDED_AT = abi.RESTRAINT.offset("shielded")
_CHARGED_AT = abi.RESTRAINT.offset("charged")
_SPENT_AT = abi.KILL_BUDGET.offset("spent")
_UNTIL_AT = abi.KILL_BUDGET.offset("until")
MAX_PROTECTED = 4096


class Restraints:
    """By slot. What is set here stays in force without a daemon."""

    def __init__(self, loaded: loader.Loaded) -> None:
        self._slots: Mapped = loaded.mapped("restraints")
        self._budget: Mapped = loaded.mapped("kill_budget")
        self._protected = loaded.maps[loader.PROTECTED]

    def clear(self, slot: int) -> None:
        """A slot that is used anew begins without any."""
        self._set(slot, _SHIELDED_AT, False)
        self._set(slot, _CHARGED_AT, False)

    def shield(self, slot: int, shielded: bool) -> None:
        """No verdict severs a workload that is shielded; programs of its that are not protected are killed as elsewhere."""
        self._set(slot, _SHIELDED_AT, shielded)

    def shielded(self, slot: int) -> bool:
        return bool(self._slots.memory[slot * self._slots.value_size + _SHIELDED_AT])

    def charge(self, slot: int, charged: bool) -> None:
        """Whether it counts against the budget already: verdicts act on it whatever is left."""
        self._set(slot, _CHARGED_AT, charged)

    def charged(self, slot: int) -> bool:
        return bool(self._slots.memory[slot * self._slots.value_size + _CHARGED_AT])

    def spent(self) -> int:
        """Workloads that verdicts have charged, ever. Read it before ``charged``: see bpf/restraint.h."""
        return int.from_bytes(self._budget.memory[_SPENT_AT : _SPENT_AT + 8], "little")

    def allow(self, spent: int, more: int | None) -> None:
        """Verdicts may hit ``more`` workloads beyond the ``spent`` that were read; None: as many as they like."""
        store_u64(self._budget.memory, _UNTIL_AT, 0 if more is None else spent + more + 1)

    def protect(self, processes: Iterable[tuple[int, int, bool]]) -> None:
        """Exactly these (pid, start ticks, whether it is an sshd of the operators, whose own helpers are, too) are never killed
        by a verdict, nor is anything that they send refused. Raises KernelError when there are more than MAX_PROTECTED."""
        wanted: Mapping[bytes, bytes] = {
            pid.to_bytes(4, "little"): (start << 1 | way_in).to_bytes(8, "little") for pid, start, way_in in processes
        }
        for key in self._protected.all_keys():
            if key not in wanted:
                self._protected.delete(key)
        for key, value in wanted.items():
            if self._protected.get(key) != value:
                self._protected.put(key, value)

    def _set(self, slot: int, at: int, value: bool) -> None:
        self._slots.memory[slot * self._slots.value_size + at] = value
