"""Workload slots: which cgroup has which number, and its containment, in memory that the kernel's programs read."""

from __future__ import annotations

import contextlib
import errno
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from killswitch.commands import Containment, Guard
from killswitch.errors import Gone, KernelError
from killswitch.kernel import abi, attach, loader, procfs
from killswitch.kernel.maps import store_u32, store_u64
from killswitch.kernel.restraint import Restraints

_ID_AT = abi.WORKLOAD.offset("cgroup_id")
_POLICIES_AT = (abi.WORKLOAD.offset("policies"), abi.WORKLOAD.offset("policies_other"))  # by half of the tables
_SEVERED_AT = abi.WORKLOAD.offset("severed")
_FROZEN_AT = abi.WORKLOAD.offset("frozen")
_TERMINATED_AT = abi.WORKLOAD.offset("terminated")
_UNATTENDED_AT = abi.WORKLOAD.offset("unattended")
_GRACE_AT = abi.WORKLOAD.offset("grace_ms")
_HOLD_AT = abi.WORKLOAD.offset("hold")
_LAPSE_AT = abi.WORKLOAD.offset("lapse_ms")
_UNHELD_AT = abi.WORKLOAD.offset("unheld")
_UNHELD_JUDGED_AT = abi.WORKLOAD.offset("unheld_judged")
_WATCHED_AT = abi.CONTROL.offset("watched")
_ACTIVE_AT = abi.CONTROL.offset("active")
_HEARTBEAT_AT = abi.CONTROL.offset("heartbeat_ns")


class Slots:
    """The watched cgroups. Iterates over their ids."""

    def __init__(self, loaded: loader.Loaded) -> None:
        self._loaded = loaded
        self._by_cgroup = loaded.maps["workload_by_cgroup"]
        self._memory = loaded.mapped("workloads").memory
        self._size = loaded.mapped("workloads").value_size
        self._slots = loaded.slots()
        self._control = loaded.mapped("control").memory
        self.restraints = Restraints(loaded)
        self._guards = loaded.mapped("guards")
        self._last = max(self._slots.values(), default=0)
        self._count()

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._slots))

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, cgroup_id: int) -> bool:
        return cgroup_id in self._slots

    def slot(self, cgroup_id: int) -> int:
        """Raises Gone when it is not watched."""
        try:
            return self._slots[cgroup_id]
        except KeyError:
            raise Gone(f"cgroup id {cgroup_id}", errno.ENOENT, "it is not watched: watch it first") from None

    def by_slot(self) -> dict[int, int]:
        return {slot: cgroup_id for cgroup_id, slot in self._slots.items()}

    def take(self, cgroup_id: int, policies: int, containment: Containment | None = None) -> int:
        """Give the cgroup a slot. Its programs, once attached, and the tracing programs find it there at once."""
        slot = self._free_slot()
        self._loaded.percpu("flows").clear(slot)
        self._loaded.percpu("losses").clear(slot)
        self.restraints.clear(slot)
        told = self._loaded.mapped("losses_told")
        told.memory[slot * told.value_size : (slot + 1) * told.value_size] = bytes(told.value_size)
        self._store(slot, policies, containment or Containment())
        for field in (_GRACE_AT, _HOLD_AT, _LAPSE_AT, _UNHELD_AT, _UNHELD_JUDGED_AT):
            store_u32(self._memory, slot * self._size + field, 0)
        self._guards.memory[slot * self._guards.value_size : (slot + 1) * self._guards.value_size] = bytes(
            self._guards.value_size
        )
        store_u64(self._memory, slot * self._size + _ID_AT, cgroup_id)
        self._by_cgroup.put(_u64(cgroup_id), slot.to_bytes(4, "little"))
        self._slots[cgroup_id] = slot
        self._last = slot
        self._count()
        return slot

    def mend(self, cgroup_id: int) -> list[str]:
        """Tell the kernel anew which workload this is, where it has been told something else; by which maps. Raises Gone when it
        is not watched, KernelError."""
        slot = self.slot(cgroup_id)
        mended = []
        for name, value in (
            ("workload_by_cgroup", slot.to_bytes(4, "little")),
            ("cgroup_slot", abi.CGROUP_SLOT.codec.pack(cgroup_id, slot)),
        ):
            told = self._loaded.maps[name]
            if told.get(_u64(cgroup_id)) != value:
                told.put(_u64(cgroup_id), value)
                mended.append(name)
        at = slot * self._size + _ID_AT
        if int.from_bytes(self._memory[at : at + 8], "little") != cgroup_id:
            store_u64(self._memory, at, cgroup_id)
            mended.append("workloads")
        return mended

    def free(self, cgroup_id: int) -> None:
        """Its id stays in the slot until the slot is used again: a packet still on its way must not find it closed."""
        slot = self._slots.pop(cgroup_id, None)
        if slot is None:
            return
        self._by_cgroup.delete(_u64(cgroup_id))
        self._store(slot, 0, Containment())
        self._count()
        processes = self._loaded.maps["processes"]
        slot_at = abi.PROCESS_PLACE.offset("slot")
        for pid, place in processes.items():
            if int.from_bytes(place[slot_at : slot_at + 4], "little") == slot:
                processes.delete(pid)

    def seed(self, cgroup_id: int, path: Path) -> None:
        """Tell the tracing programs where the processes are that were there before it was watched."""
        slot, processes = self._slots[cgroup_id], self._loaded.maps["processes"]
        for pid, at in attach.places(path):
            with contextlib.suppress(Gone):  # it has ended while we looked
                place = abi.PROCESS_PLACE.codec.pack(at, cgroup_id, slot, 0, procfs.start_ticks(pid))
                processes.put(pid.to_bytes(4, "little"), place)

    def policies(self, cgroup_id: int) -> int:
        """As the tables in force number them."""
        at = self.slot(cgroup_id) * self._size + _POLICIES_AT[self._half]
        return int(struct.unpack_from("<Q", self._memory, at)[0])

    def set_policies(self, cgroup_id: int, policies: int) -> None:
        """As the tables in force number them."""
        store_u64(self._memory, self.slot(cgroup_id) * self._size + _POLICIES_AT[self._half], policies)

    def number_anew(self, policies: Mapping[int, int]) -> None:
        """What policies every workload has by the tables that are *not* in force, which are about to be; of one that is not
        named here the numbers stay the same."""
        for cgroup_id, slot in self._slots.items():
            number = policies[cgroup_id] if cgroup_id in policies else self.policies(cgroup_id)
            store_u64(self._memory, slot * self._size + _POLICIES_AT[1 - self._half], number)

    @property
    def _half(self) -> int:
        """Of the policy tables, which is in force."""
        return self._control[_ACTIVE_AT] & 1

    def containment(self, cgroup_id: int) -> Containment:
        at = self.slot(cgroup_id) * self._size
        memory = self._memory
        return Containment(
            memory[at + _SEVERED_AT] != 0, memory[at + _FROZEN_AT] != 0, memory[at + _TERMINATED_AT] != 0
        )

    def set_containment(self, cgroup_id: int, containment: Containment) -> None:
        at = self.slot(cgroup_id) * self._size
        self._contain(at, containment)

    def unattended(self, cgroup_id: int) -> bool:
        """Whether it was severed by the programs themselves, because the daemon was away for longer than its grace."""
        return bool(self._memory[self.slot(cgroup_id) * self._size + _UNATTENDED_AT])

    def set_unattended(self, cgroup_id: int, value: bool) -> None:
        self._memory[self.slot(cgroup_id) * self._size + _UNATTENDED_AT] |= value

    def attended(self, cgroup_id: int) -> None:
        self._memory[self.slot(cgroup_id) * self._size + _UNATTENDED_AT] = 0

    def set_grace(self, cgroup_id: int, grace_ms: int) -> None:
        self.beat()  # who sets it is there, and the last one may have been long ago
        store_u32(self._memory, self.slot(cgroup_id) * self._size + _GRACE_AT, grace_ms)

    def set_hold(self, cgroup_id: int, mode: int, lapse_ms: int) -> None:
        at = self.slot(cgroup_id) * self._size
        store_u32(self._memory, at + _LAPSE_AT, lapse_ms)
        self._memory[at + _HOLD_AT] = mode

    def set_guards(self, cgroup_id: int, guards: Guard) -> None:
        """What LSM programs refuse it also while it is free."""
        store_u32(self._guards.memory, self.slot(cgroup_id) * self._guards.value_size, guards)

    def denied(self, cgroup_id: int) -> tuple[int, ...]:
        """How often LSM programs have refused it something, by ``abi.Denied``."""
        values = abi.GUARD.codec.unpack(self._guards.element(self.slot(cgroup_id)))
        return values[1:]

    def beat(self) -> None:
        """We are here: the programs cut off who has a grace once this is longer ago than that."""
        store_u64(self._control, _HEARTBEAT_AT, time.monotonic_ns())

    def _store(self, slot: int, policies: int, containment: Containment) -> None:
        for half_at in _POLICIES_AT:
            store_u64(self._memory, slot * self._size + half_at, policies)
        self._contain(slot * self._size, containment)

    def _contain(self, at: int, containment: Containment) -> None:
        """One store each: a program that severs at the same time must not be overwritten by what was read before."""
        self._memory[at + _SEVERED_AT] = containment.severed
        if not containment.severed:
            self._memory[at + _UNATTENDED_AT] = 0
        self._memory[at + _FROZEN_AT] = containment.frozen
        self._memory[at + _TERMINATED_AT] = containment.terminated

    def _free_slot(self) -> int:
        """The next that is free, round and round: one that was freed just now comes last."""
        used = set(self._slots.values())
        for step in range(1, abi.MAX_WORKLOADS):
            slot = (self._last + step - 1) % (abi.MAX_WORKLOADS - 1) + 1
            if slot not in used:
                return slot
        raise KernelError("watch one more cgroup", errno.ENOSPC, f"{abi.MAX_WORKLOADS - 1} are watched; unwatch some")

    def _count(self) -> None:
        store_u32(self._control, _WATCHED_AT, len(self._slots))


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
