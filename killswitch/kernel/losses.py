"""Events that never reached user space, as deltas."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping

from killswitch.events import Lost
from killswitch.kernel import abi, loader

REASONS = tuple(reason.name.lower() for reason in abi.LossReason)


class Losses:
    """What has been told already is kept in a pinned map too, so that a restart tells nothing twice and forgets nothing."""

    def __init__(self, loaded: loader.Loaded) -> None:
        self._counted = loaded.percpu("losses")
        self._told = loaded.mapped("losses_told")

    def take(self, by_slot: Mapping[int, int]) -> list[Lost]:
        """By workload (0 = not to be told) and reason, since the last call. ``by_slot``: slot -> cgroup id."""
        now = time.monotonic_ns()
        lost: list[Lost] = []
        for slot in (0, *by_slot):
            total = self._counted.total(slot)
            codec = struct.Struct(f"<{len(total)}Q")  # an older release counts fewer reasons
            told = codec.unpack(self._told.element(slot))
            if total == told:
                continue
            at = slot * self._told.value_size
            self._told.memory[at : at + self._told.value_size] = codec.pack(*total)
            lost += [
                Lost(now, by_slot.get(slot, 0), reason, counted - before)
                for reason, counted, before in zip(REASONS, total, told, strict=False)
                if counted > before
            ]
        return lost
