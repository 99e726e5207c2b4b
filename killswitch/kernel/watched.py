"""What the kernel has of a watched workload."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.commands import Containment


@dataclass(frozen=True, slots=True)
class KernelWorkload:
    """A workload as it is pinned in the kernel."""

    cgroup_id: int
    policies: int  # bit set of policy indices
    containment: Containment  # desired
    unattended: bool = False  # severed by the programs themselves: the daemon was away for too long


@dataclass(frozen=True, slots=True)
class Flows:
    """Packets and bytes of a workload's sockets since it is watched; what was dropped is not among the rest."""

    tx_packets: int
    tx_bytes: int
    tx_dropped: int
    rx_packets: int
    rx_bytes: int
    rx_dropped: int
    tx_held: int = 0  # of programs that were not judged yet; they may leave when they are sent again
