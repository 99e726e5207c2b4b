"""Policy tables into the data plane: filled in the half that is not in force, then switched to by one store."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import time
from collections.abc import Mapping

from killswitch.commands import MAX_CLAUSES, MAX_GRAMMARS, MAX_INODES, MAX_STATES, KernelTables
from killswitch.errors import KernelError
from killswitch.kernel import abi
from killswitch.kernel.maps import Map, Mapped, store_u32

ROW_BYTES = abi.DFA_ROW.size
ACTIVE_AT = abi.CONTROL.offset("active")
MAPS = ("dfa_rows", "dfa_accepts", "clauses", "policy_meta", "inode_bits")  # and control.active

_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283}
_MEMBARRIER_CMD_GLOBAL = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Tables:
    def __init__(self, maps: Mapping[str, Map], control: Mapped) -> None:
        self._maps, self._control = maps, control

    @property
    def active(self) -> int:
        return int(struct.unpack_from("<I", self._control.memory, ACTIVE_AT)[0]) & 1

    @property
    def generation(self) -> int:
        """Of the tables in force; 0 = none."""
        meta = self._maps["policy_meta"].get(_u32(self.active)) or bytes(4)
        return int.from_bytes(meta[:4], "little")

    def fill(self, tables: KernelTables, generation: int) -> None:
        """Write the tables into the half that is not in force; ``switch`` puts it in force. Takes milliseconds, and more where
        CPUs are wanted: may run in a thread, one at a time. Raises KernelError when they do not fit or the kernel refuses."""
        self._check(tables, generation)
        half = 1 - self.active
        _wait_for_readers()
        states = len(tables.rows) // ROW_BYTES
        first = half * MAX_STATES
        self._maps["dfa_rows"].put_packed(_numbers(first, states), tables.rows)
        accepting = sorted(s for s in tables.accepts if s)
        self._maps["dfa_accepts"].put_many(
            [_u32(first + s) for s in accepting], [_bits(tables.accepts[s]) for s in accepting]
        )
        clauses = (*tables.clauses, *tables.wire_clauses, *tables.hold_clauses)
        self._maps["clauses"].put_packed(
            _numbers(half * MAX_CLAUSES, len(clauses)),
            b"".join(
                abi.CLAUSE.codec.pack(_bits(c.mask), _bits(c.value), c.policy, c.kill, c.sever, c.deny) for c in clauses
            ),
        )
        self._fill_inodes(tables, half)
        self._maps["policy_meta"].put(_u32(half), self._meta(tables, generation))

    def switch(self) -> None:
        """Put in force what was filled last: one store."""
        store_u32(self._control.memory, ACTIVE_AT, 1 - self.active)

    def tell_program(self, pid: int, start_ticks: int, bits: int, generation: int) -> None:
        programs, key = self._maps["process_bits"], _u32(pid)
        known = programs.get(key)
        if known is not None:
            _, start, judged_by = abi.PROCESS_BITS.codec.unpack(known)
            if (start, judged_by) == (start_ticks, generation):
                return
        programs.put(key, abi.PROCESS_BITS.codec.pack(_bits(bits), start_ticks, generation))

    def _fill_inodes(self, tables: KernelTables, half: int) -> None:
        inodes = self._maps["inode_bits"]
        half_at = abi.INODE_KEY.offset("half")
        for key in inodes.all_keys():
            if int.from_bytes(key[half_at : half_at + 4], "little") == half:
                inodes.delete(key)
        merged: dict[bytes, int] = {}
        for device, inode, bits in tables.inodes:
            key = abi.INODE_KEY.codec.pack(inode, abi.kernel_device(device), half)
            merged[key] = merged.get(key, 0) | bits
        inodes.put_many(list(merged), [_bits(b) for b in merged.values()])

    @staticmethod
    def _meta(tables: KernelTables, generation: int) -> bytes:
        pairs = [word for g in tables.grammars for word in (g.gate, g.start)]
        pairs += [0] * (2 * MAX_GRAMMARS - len(pairs))
        return abi.POLICY_META.codec.pack(
            generation, len(tables.clauses), len(tables.grammars), len(tables.inodes), tables.start_name,
            tables.start_path, tables.start_parent, tables.start_args, len(tables.wire_clauses), tables.start_sent,
            tables.start_received, tables.start_host, tables.start_address4, tables.start_address6, tables.start_port,
            len(tables.hold_clauses), sum(clause.deny for clause in tables.clauses),
            _bits(tables.wire_bits), _bits(tables.told_bits), _bits(tables.late_bits), *pairs,
        )  # fmt: skip

    @staticmethod
    def _check(tables: KernelTables, generation: int) -> None:
        if not 0 < generation < 1 << 32:
            raise ValueError(f"policy generation {generation}: must be between 1 and 2^32 - 1")
        if len(tables.rows) % ROW_BYTES:
            raise ValueError(f"policy tables: {len(tables.rows)} bytes of rows are no whole number of states")
        for what, have, fits in (
            ("states", len(tables.rows) // ROW_BYTES, MAX_STATES),
            ("clauses", len(tables.clauses) + len(tables.wire_clauses) + len(tables.hold_clauses), MAX_CLAUSES),
            ("grammars", len(tables.grammars), MAX_GRAMMARS),
            ("inodes", len(tables.inodes), MAX_INODES),
        ):
            if have > fits:
                hint = f"{have} {what}, at most {fits} fit: use fewer rules or smaller lists"
                raise KernelError("load the policy into the kernel", errno.E2BIG, hint)


def _wait_for_readers() -> None:
    """Until no program can still be walking the half that is no longer in force: it is about to be overwritten.

    membarrier's global command waits for an RCU grace period; where it is not offered (nohz_full), programs that run for
    microseconds with preemption off are long done after a few milliseconds.
    """
    number = _MEMBARRIER.get(platform.machine())
    if number is None or _libc.syscall(number, _MEMBARRIER_CMD_GLOBAL, 0, 0):
        time.sleep(0.02)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _bits(bits: int) -> bytes:
    return bits.to_bytes(32, "little")


def _numbers(first: int, n: int) -> bytes:
    return struct.pack(f"<{n}I", *range(first, first + n))
