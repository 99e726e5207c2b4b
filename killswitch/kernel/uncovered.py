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

from killswitch.errors import KernelError, NotSupported
from killswitch.kernel import bpfcall, rtnetlink, syscalls

_AF_XDP = 44
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


def _at_devices() -> str:
    """Frames of packet sockets are judged at the devices: tried at the loopback of a network namespace made for it."""
    failed: list[KernelError] = []

    def work() -> None:
        try:
            syscalls.unshare(_CLONE_NEWNET)
            index = socket.if_nametoindex("lo")
            program = bpfcall.load(_SCHED_CLS, bpfcall.allow(-1))
            try:
                try:
                    os.close(bpfcall.link(program, index, _TCX_EGRESS))
                except KernelError:
                    rtnetlink.set_filter(index, "egress", program, "ks_probe", handle=1, priority=1)
            finally:
                os.close(program)
        except KernelError as e:
            failed.append(e)

    thread = threading.Thread(target=work, name="at devices")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return "their frames are judged at the devices; severed, they hear nothing"


def _no_xdp() -> str:
    with contextlib.suppress(NotSupported):
        return _closed(_AF_XDP, socket.SOCK_RAW, "AF_XDP sockets", "")()
    return "a severed workload sets none up, and who holds one at the cut is ended"


def _unread() -> str:
    """Of no kernel: what is encrypted has no name that can be read on its way."""
    hint = (
        "a name in QUIC, DNS over HTTPS or TLS, or an encrypted ClientHello is not seen; rules about behaviour remain"
    )
    raise NotSupported("read every name that is asked for", errno.EOPNOTSUPP, hint)


def _unseen() -> str:
    """What no hook outside the LSM tells of. Where there is one, no program of ours is at it yet."""
    raise NotSupported("see them", errno.EOPNOTSUPP, _TAMPERING)


TRIALS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    (
        "no_packet_sockets",
        "severed is severed: no way round by AF_PACKET",
        _at_devices,
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
        "no_unix_helpers",
        "severed is severed: no way round by asking a process outside over a unix socket",
        _closed(
            socket.AF_UNIX, socket.SOCK_STREAM, "unix sockets",
            "`killswitch run` hides those of D-Bus, systemd and container engines; freezing stops whoever would ask",
        ),
    ),
    ("no_hidden_names", "the wire is judged: no way round by a name that is encrypted", _unread),
    (
        "all_tampering_seen",
        "tampering: a workload's hand on processes outside, and on the kill switch, is seen whichever way it takes",
        _unseen,
    ),
)  # fmt: skip
