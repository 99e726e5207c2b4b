"""Sockets that a workload holds and did not make, cut off with it: inherited, passed in, made before its process joined.

A socket is for ever of the cgroup that made it, so the programs on the workload's cgroup never see its packets; destroyed,
it can be connected anew. So it is marked (in the socket's own storage, which what a listening one accepts inherits), and two
programs at the root of the cgroup tree drop the packets of whatever is marked for a workload that is cut off. They are
attached when the first is marked and taken away when nobody is cut off any more: else the host pays nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.kernel import abi, attach, loader, pins


class Handed:
    """For any thread. ``mount`` is where the cgroup tree is mounted."""

    def __init__(self, loaded: loader.Loaded, mount: Path) -> None:
        self._generation, self._mount = loaded.generation, mount
        self._marks = loaded.maps.get(loader.HANDED)
        self._lock = threading.Lock()

    def cut(self, cgroup_id: int, slot: int, fd: int) -> bool:
        """Mark the socket that this descriptor of ours leads to; it carries nothing any more while the workload in that slot
        is severed. False when it was marked already. Raises KernelError."""
        if self._marks is None:
            raise KernelError("mark a socket", 95, "the data plane is of an older release: restart the daemon")
        key, value = fd.to_bytes(4, "little"), abi.HANDED.codec.pack(cgroup_id, slot)
        with self._lock:
            self._attach()
            if self._marks.get(key) == value:
                return False
            self._marks.put(key, value)
        return True

    def let_go(self) -> None:
        """Nobody is cut off: take the programs away."""
        with self._lock:
            pins.detach_all(self._generation.handed)

    def _attach(self) -> None:
        missing = {name: kind for name, kind in attach.HANDED.items() if not (self._generation.handed / name).exists()}
        if missing:
            attach.attach_to_root(self._generation, self._generation.handed, missing, self._mount)
