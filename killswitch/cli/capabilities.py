"""Which capabilities a workload that ``killswitch run`` starts has, and why not the others.

What lets root manage *its own* files, users and ports stays, so that builds and installs as root go on working. What
reaches beyond the workload, or gets around what contains it, goes from every set. A capability that a later kernel
invents is not in the table, and goes.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple


class Capability(NamedTuple):
    bit: int
    kept: bool
    why: str  # what it is kept for, or what it would let a workload do


def _kept(bit: int, why: str) -> Capability:
    return Capability(bit, True, why)


def _taken(bit: int, why: str) -> Capability:
    return Capability(bit, False, why)


TABLE: dict[str, Capability] = {
    "CAP_CHOWN": _kept(0, "installs and unpacking archives as root"),
    "CAP_DAC_OVERRIDE": _kept(1, "root owns its files; what containment needs is mounted read-only or hidden"),
    "CAP_DAC_READ_SEARCH": _taken(2, "open_by_handle_at opens files around every mount that hides or protects them"),
    "CAP_FOWNER": _kept(3, "installs as root"),
    "CAP_FSETID": _kept(4, "installs as root; setuid files give nothing with no_new_privs"),
    "CAP_KILL": _kept(5, "supervisors that drop to another user; processes outside are not in its pid namespace"),
    "CAP_SETGID": _kept(6, "services and package managers that drop to another user"),
    "CAP_SETUID": _kept(7, "services and package managers that drop to another user"),
    "CAP_SETPCAP": _kept(8, "sandboxes that take more away; the bounding set ends what it could add"),
    "CAP_LINUX_IMMUTABLE": _taken(9, "makes files that an operator cannot delete"),
    "CAP_NET_BIND_SERVICE": _kept(10, "servers on ports below 1024"),
    "CAP_NET_BROADCAST": _taken(11, "unused by the kernel"),
    "CAP_NET_ADMIN": _taken(12, "changes routes, addresses, filters and tunnels of the whole host, and tc programs"),
    "CAP_NET_RAW": _taken(13, "packet sockets, which programs on a cgroup do not see, and forged addresses"),
    "CAP_IPC_LOCK": _kept(14, "locked and registered memory of databases, GPUs and RDMA"),
    "CAP_IPC_OWNER": _taken(15, "shared memory and semaphores of everybody else"),
    "CAP_SYS_MODULE": _taken(16, "code in the kernel"),
    "CAP_SYS_RAWIO": _taken(17, "memory, ports and MSRs of the machine; raw commands to disks"),
    "CAP_SYS_CHROOT": _kept(18, "builds in a chroot; joining a mount namespace needs CAP_SYS_ADMIN, too"),
    "CAP_SYS_PTRACE": _taken(19, "takes over processes outside, and descriptors of theirs (pidfd_getfd)"),
    "CAP_SYS_PACCT": _taken(20, "switches process accounting"),
    "CAP_SYS_ADMIN": _taken(21, "mounts (the cgroup tree, writable), namespaces of others, BPF: undoes containment"),
    "CAP_SYS_BOOT": _taken(22, "reboots, or loads another kernel"),
    "CAP_SYS_NICE": _taken(23, "real-time priority over the daemon, and other processes' priorities"),
    "CAP_SYS_RESOURCE": _taken(24, "goes beyond limits and quotas that were set for it"),
    "CAP_SYS_TIME": _taken(25, "sets the clock that evidence and rules rest on"),
    "CAP_SYS_TTY_CONFIG": _taken(26, "hangs up terminals of others"),
    "CAP_MKNOD": _taken(27, "makes a device node for the host's disk and writes to it"),
    "CAP_LEASE": _taken(28, "holds up whoever opens a file, the daemon too"),
    "CAP_AUDIT_WRITE": _kept(29, "sshd, login and su write records, and fail without; it can only add"),
    "CAP_AUDIT_CONTROL": _taken(30, "switches auditing off"),
    "CAP_SETFCAP": _kept(31, "package managers set capabilities of files; no_new_privs ends what those give"),
    "CAP_MAC_OVERRIDE": _taken(32, "gets around the security module"),
    "CAP_MAC_ADMIN": _taken(33, "reconfigures the security module"),
    "CAP_SYSLOG": _taken(34, "reads kernel addresses, clears the kernel's log"),
    "CAP_WAKE_ALARM": _taken(35, "wakes the machine"),
    "CAP_BLOCK_SUSPEND": _taken(36, "keeps the machine from suspending"),
    "CAP_AUDIT_READ": _taken(37, "reads what auditing says of everybody"),
    "CAP_PERFMON": _taken(38, "reads memory of the kernel and of other processes by tracing"),
    "CAP_BPF": _taken(39, "opens, changes and detaches the maps and programs that contain it"),
    "CAP_CHECKPOINT_RESTORE": _taken(40, "chooses pids, and reads /proc/PID/map_files of others"),
}
KEPT = frozenset(c.bit for c in TABLE.values() if c.kept)


def canonical(name: str) -> str:
    """``net_raw`` or ``CAP_NET_RAW`` → ``CAP_NET_RAW``. Raises ValueError, with what may have been meant."""
    upper = name.upper()
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full in TABLE:
        return full
    near = difflib.get_close_matches(full, TABLE, n=1)
    raise ValueError(f"{name!r} is no capability{f'; did you mean {near[0]}?' if near else ' (see capabilities(7))'}")
