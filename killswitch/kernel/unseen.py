"""Sockets that programs on a cgroup do not see, because they are not of the internet's families: what can be done to each.

A packet socket sends through the devices, where ``frames`` stands; it is made to stay there, and deaf. A vsock connection is
shut down. To others nothing can be done from outside (an AF_XDP socket's ring, a listening vsock): who holds one has to end.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Iterable

from killswitch.errors import Gone, KernelError
from killswitch.kernel import pidfd, procfs

XDP, VSOCK = 44, 40
# They lead nowhere outside this host, or are seen by their frames: everything but these two sets is of no network at all.
_FRAMES = frozenset({socket.AF_PACKET})
_ELSEWHERE = frozenset(
    {
        *(XDP, VSOCK),
        *(
            21,
            24,
            27,
            30,
            31,
            33,
            34,
            39,
            42,
            43,
            45,
        ),  # rds, pppox, ib, tipc, bluetooth, rxrpc, isdn, nfc, qrtr, smc, mctp
    }
)
NAMES = {XDP: "xdp", VSOCK: "vsock"}

_SO_ATTACH_FILTER, _SO_LOCK_FILTER = 26, 44  # to get the first is SO_GET_FILTER
_SOL_PACKET, _QDISC_BYPASS = 263, 20
_REFUSE_ALL = struct.pack("=HBBI", 6, 0, 0, 0)  # BPF_RET | BPF_K: keep 0 bytes of each packet
_MAX_INSTRUCTIONS = 4096
_ENDED_MS = 2000

_libc = ctypes.CDLL(None, use_errno=True)


class Fate(enum.Enum):
    LOCAL = "it leads nowhere outside"
    MUTED = "it sends through the devices' programs, and hears nothing more"
    SHUT = "shut down"
    LOOSE = "nothing can be done to it"


def close_off(ours: socket.socket) -> Fate:
    """Do to a socket, through a duplicate of ours, what can be done. Again and again: the answer stays the same."""
    if ours.family in _FRAMES:
        return Fate.MUTED if _mute(ours) else Fate.LOOSE
    if ours.family == socket.AF_UNIX:
        return Fate.SHUT if _leads_to_us(ours) and _shut(ours) else Fate.LOCAL
    if ours.family == VSOCK:
        return Fate.SHUT if _shut(ours) else Fate.LOOSE
    return Fate.LOOSE if int(ours.family) in _ELSEWHERE else Fate.LOCAL


def _mute(ours: socket.socket) -> bool:
    try:
        ours.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 0)
    except OSError as e:
        if e.errno != errno.ENOPROTOOPT:  # a kernel that has no such option has no such way round
            return False
    if ours.getsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER):
        return (
            _filter(ours) == _REFUSE_ALL
        )  # ours, of before; or one that it has locked itself, and that we cannot change
    with contextlib.suppress(OSError):
        code = ctypes.create_string_buffer(_REFUSE_ALL)
        program = struct.pack("@HP", 1, ctypes.addressof(code))
        ours.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        ours.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
        return True
    return False


def _leads_to_us(ours: socket.socket) -> bool:
    """Whether this process listens at the other end: nobody asks to be let go through a connection of before the cut."""
    with contextlib.suppress(OSError):
        (pid,) = struct.unpack_from("=i", ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return bool(pid == os.getpid())
    return False


def _filter(ours: socket.socket) -> bytes:
    """The classic filter of a socket. Its length is counted in instructions, which ``socket.getsockopt`` cannot know."""
    room = ctypes.create_string_buffer(8 * _MAX_INSTRUCTIONS)
    count = ctypes.c_uint(_MAX_INSTRUCTIONS)
    if _libc.getsockopt(ours.fileno(), socket.SOL_SOCKET, _SO_ATTACH_FILTER, room, ctypes.byref(count)):
        return b""
    return room.raw[: 8 * count.value]


def _shut(ours: socket.socket) -> bool:
    poll = select.poll()
    poll.register(ours, 0)
    if any(seen & select.POLLHUP for _, seen in poll.poll(0)):
        return True
    try:
        ours.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False  # not connected: it may be, a moment later, or it listens
    return True


def end(pids: Iterable[int]) -> tuple[list[int], list[str]]:
    """SIGKILL to each of these processes, and see it end: (who has ended, what failed)."""
    ended: list[int] = []
    failed: list[str] = []
    for pid in pids:
        try:
            with pidfd.process(pid, procfs.start_ticks(pid)) as fd:
                pidfd.send(fd, signal.SIGKILL)
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                if not poll.poll(_ENDED_MS):
                    failed.append(f"process {pid} lives {_ENDED_MS / 1000:g} s after SIGKILL")
                    continue
        except Gone:
            continue
        except KernelError as e:
            failed.append(f"process {pid}: {e}")
            continue
        ended.append(pid)
    return ended, failed
