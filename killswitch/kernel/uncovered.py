"""Ways out that programs on a cgroup do not see, and whether this kernel has them: what `doctor` must not keep quiet.

The programs run for inet sockets (IPv4, IPv6). A socket of another family that this kernel can make is a way round them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from killswitch.errors import KernelError, NotSupported
from killswitch.kernel import bpfcall, compat, rtnetlink, syscalls, unixhooks

_AF_XDP = 44
_FAMILIES = 47  # AF_MAX of Linux 6.x; families that came later are asked for by nobody yet
_CLONE_NEWNET, _SCHED_CLS, _TCX_EGRESS = 0x40000000, 3, 47
_ABSENT = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)
_TAMPERING = (
    "nothing tells of them but an LSM: bpf(), PTRACE_SEIZE, process_vm_writev, /proc/PID/mem and connections to the daemon's "
    "sockets; `killswitch run` takes CAP_BPF and CAP_SYS_PTRACE away and hides the sockets"
)


def _closed(family: int, kind: int, name: str, what_helps: str) -> Callable[[], str]:
    """True to its name when no such socket can be made, by root, on this kernel."""

    def attempt() -> str:
        try:
            socket.socket(family, kind).close()
        except OSError as e:
            if e.errno not in _ABSENT:
                raise
            return f"this kernel has no {name}"
        raise NotSupported(f"cut {name}", errno.EOPNOTSUPP, f"programs on a cgroup do not see them; {what_helps}")

    return attempt


def _at_loopback(attempt: Callable[[int], None]) -> None:
    """Try it with the index of a loopback device that is nobody's: of a network namespace made for it. Raises what it raises."""
    failed: list[KernelError] = []

    def work() -> None:
        try:
            syscalls.unshare(_CLONE_NEWNET)
            attempt(socket.if_nametoindex("lo"))
        except KernelError as e:
            failed.append(e)
        except OSError as e:
            failed.append(syscalls.error("find the loopback device of a namespace of our own", e))

    thread = threading.Thread(target=work, name="at a device of its own")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _at_devices() -> str:
    """Frames of packet sockets are judged at the devices: by a link there, or a filter."""

    def attempt(index: int) -> None:
        program = bpfcall.load(_SCHED_CLS, bpfcall.allow(-1))
        try:
            try:
                os.close(bpfcall.link(program, index, _TCX_EGRESS))
            except KernelError:
                rtnetlink.set_filter(index, "egress", program, "ks_probe", handle=1, priority=1)
        finally:
            os.close(program)

    _at_loopback(attempt)
    return "their frames are judged at the devices; severed, they hear nothing"


def _sealed() -> str:
    """What lets nothing out is a link, so that it is known of later."""

    def attempt(index: int) -> None:
        program = bpfcall.load(_SCHED_CLS, bpfcall.allow(2))
        try:
            os.close(bpfcall.link(program, index, _TCX_EGRESS))
        finally:
            os.close(program)

    _at_loopback(attempt)
    return "a network namespace in which nobody else lives lets nothing out while its workload is severed and runs"


def _no_xdp() -> str:
    with contextlib.suppress(NotSupported):
        return _closed(_AF_XDP, socket.SOCK_RAW, "AF_XDP sockets", "")()
    return "a severed workload sets none up, and who holds one at the cut is ended"


def _no_bypass() -> str:
    """By their nodes: what is bound to none can be opened by nobody."""
    nodes = ("infiniband/uverbs*", "vfio/[0-9]*", "vfio/devices/*", "uio[0-9]*")
    found = sorted(str(path) for pattern in nodes for path in Path("/dev").glob(pattern))
    if found:
        hint = (
            f"here there is {', '.join(found[:3])}: no program of ours sees what goes through it, nor a peer who reads the "
            "memory of what is frozen; `terminate` ends it, and `killswitch run` hides it"
        )
        raise NotSupported("cut devices that programs drive themselves", errno.EOPNOTSUPP, hint)
    return "this host has no such devices"


def _unread() -> str:
    """Of no kernel: what is encrypted has no name that can be read on its way."""
    hint = (
        "a name in QUIC, DNS over HTTPS or TLS, or an encrypted ClientHello is not seen; rules about behaviour remain"
    )
    raise NotSupported("read every name that is asked for", errno.EOPNOTSUPP, hint)


def _unseen() -> str:
    """What no hook outside the LSM tells of. Where our programs are at those hooks, the row is left out: see ``lsm``."""
    raise NotSupported("see them", errno.EOPNOTSUPP, _TAMPERING)


def _open(what: str, hint: str) -> Callable[[], str]:
    """Open on every kernel, where nothing stronger (an LSM) stands before it."""

    def attempt() -> str:
        raise NotSupported(what, errno.EOPNOTSUPP, hint)

    return attempt


def _other_families() -> str:
    """Families that have a row of their own, or nobody at their far end, are passed over."""
    known = {
        socket.AF_UNIX,
        socket.AF_INET,
        socket.AF_INET6,
        socket.AF_NETLINK,
        socket.AF_PACKET,
        socket.AF_VSOCK,
        _AF_XDP,
    }
    known |= {socket.AF_ALG, socket.AF_KEY}
    found = []
    for family in sorted(set(range(1, _FAMILIES)) - known):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue
            found.append(str(family))
            break
    if found:
        hint = f"this kernel makes sockets of family {', '.join(found)} (see socket.h): unload the modules where unused"
        raise NotSupported("cut sockets of other families", errno.EOPNOTSUPP, hint)
    return "no socket of another family can be made here"


TRIALS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    (
        "no_packet_sockets",
        "severed is severed: no way round by AF_PACKET",
        _at_devices,
    ),
    (
        "sealed_namespaces",
        "severed is severed: what the kernel sends by itself in a network namespace of the workload's own",
        _sealed,
    ),
    (
        "no_kernel_senders",
        "severed is severed: no way round by what the kernel sends by itself where others live as well (tunnels, bridges, rules)",
        _open(
            "tell whose it is",
            "to set that up takes CAP_NET_ADMIN, which `killswitch run` takes away; in a network namespace of the workload's "
            "own see sealed_namespaces",
        ),
    ),
    (
        "no_own_programs",
        "severed is severed: no way round by BPF programs of its own (a test run that sends frames; one before ours at a device)",
        _open(
            "refuse them",
            "bpf() takes CAP_BPF, which `killswitch run` takes away; what lies before ours at a device is put behind it within "
            "`reconcile_seconds`; freezing stops who would run them; an LSM refuses bpf()",
        ),
    ),
    (
        "no_compat_options",
        "severed is severed: no way round by options that a 32-bit call sets (a multicast group's report, frames past the queue)",
        compat.trial,
    ),
    (
        "no_xdp_sockets",
        "severed is severed: no way round by AF_XDP",
        _no_xdp,
    ),
    (
        "no_vsock",
        "severed is severed: no way round by AF_VSOCK, to the hypervisor",
        _closed(
            socket.AF_VSOCK, socket.SOCK_STREAM, "AF_VSOCK sockets",
            "at the cut who holds one is ended; one that is made later, by a workload that is severed and not frozen, ends its "
            "maker within `reconcile_seconds`: unload vsock where it is unused",
        ),
    ),
    (
        "unix_connections",
        "severed is severed: no new unix connection, nor a datagram to a unix address, where there is no BPF LSM",
        unixhooks.trial,
    ),
    (
        "no_unix_helpers",
        "severed is severed: no way round by asking a process outside over a unix socket",
        _closed(
            socket.AF_UNIX, socket.SOCK_STREAM, "unix sockets",
            "what was connected before the cut stays so (new connections: see unix_connections, lsm_unix_sockets); `killswitch "
            "run` hides the sockets of D-Bus, systemd and container engines; freezing stops whoever would ask",
        ),
    ),
    (
        "no_other_families",
        "severed is severed: no way round by sockets of another family",
        _other_families,
    ),
    (
        "no_handed_sockets",
        "severed is severed: no way round by a socket that is passed in after the cut, or taken from a process outside",
        _open(
            "refuse it",
            "it is found and cut off within `reconcile_seconds`; freezing stops whoever would use it; an LSM refuses it",
        ),
    ),
    (
        "no_kernel_helpers",
        "severed is severed: no way round by what the kernel starts outside (request_key, a core dump's reader, a release agent)",
        _open(
            "refuse it",
            "`killswitch run` refuses request_key and writing the settings; else see that /sbin/request-key and core_pattern "
            "lead to nothing that speaks to the network",
        ),
    ),
    (
        "no_accomplices",
        "severed is severed: no way round by somebody outside who reads what it writes (files, pipes, shared memory, logs)",
        _open("tell who that is", "of no kernel: freeze it, which `kill` does; a network file system sends what it writes, too"),
    ),
    (
        "no_queued_packets",
        "severed is severed: what a device's queue holds at the cut",
        _open(
            "take packets out of a queue",
            "what has left the socket before the cut leaves the host after it: microseconds, unless the link is congested or "
            "sch_fq paces a socket that asked for it",
        ),
    ),
    (
        "no_kernel_bypass",
        "severed is severed: no way round by network devices that a program drives itself, past the kernel (RDMA, VFIO, UIO)",
        _no_bypass,
    ),
    ("no_hidden_names", "the wire is judged: no way round by a name that is encrypted", _unread),
    (
        "all_tampering_seen",
        "tampering: a workload's hand on processes outside, and on the kill switch, is seen whichever way it takes",
        _unseen,
    ),
)  # fmt: skip
