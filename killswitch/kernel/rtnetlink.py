"""NETLINK_ROUTE, as far as programs at devices need it: the clsact queueing discipline, and filters in it.

Where the kernel has no tcx links (before 6.6) programs are attached so. A filter stays when its maker ends, like a pinned
link; it goes with its device.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

from killswitch.errors import Gone, KernelError
from killswitch.kernel import syscalls

_NEW_QDISC, _NEW_FILTER, _DELETE_FILTER = 36, 44, 45
_REQUEST, _ACK, _REPLACE, _EXCLUSIVE, _CREATE = 1, 4, 0x100, 0x200, 0x400
_ERROR = 2
_KIND, _OPTIONS = 1, 2  # TCA_*
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _DIRECT = 6, 7, 8, 1  # TCA_BPF_*
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_WHERE = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_ALL_PROTOCOLS = 0x0003

_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_TRAFFIC_CONTROL = struct.Struct("=B3xiIII")  # tcmsg: family, device, handle, parent, info


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _ask(what: str, kind: int, flags: int, body: bytes) -> None:
    """In the network namespace of the calling thread. Raises KernelError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as s:
        s.settimeout(5)
        try:
            s.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
            answer = s.recv(8192)
        except OSError as e:
            raise syscalls.error(what, e) from e
    if _HEADER.unpack_from(answer)[1] == _ERROR and (code := -struct.unpack_from("=i", answer, _HEADER.size)[0]):
        raise syscalls.error(what, code)


def _filter(device: int, where: str, handle: int, priority: int) -> bytes:
    info = priority << 16 | socket.htons(_ALL_PROTOCOLS)
    return _TRAFFIC_CONTROL.pack(0, device, handle, _WHERE[where], info) + _attribute(_KIND, b"bpf\0")


def set_filter(device: int, where: str, program: int, name: str, *, handle: int, priority: int) -> None:
    """Attach a program, in the place of what has this handle and priority. Raises KernelError."""
    what = f"attach {name} to {where} of device {device}"
    discipline = _TRAFFIC_CONTROL.pack(0, device, _CLSACT_HANDLE, _CLSACT, 0) + _attribute(_KIND, b"clsact\0")
    try:
        _ask(f"make a place for programs at device {device}", _NEW_QDISC, _CREATE | _EXCLUSIVE, discipline)
    except KernelError as e:
        if e.code != errno.EEXIST:
            raise
    options = (
        _attribute(_BPF_FD, struct.pack("=I", program))
        + _attribute(_BPF_NAME, os.fsencode(name) + b"\0")
        + _attribute(_BPF_FLAGS, struct.pack("=I", _DIRECT))
    )
    body = _filter(device, where, handle, priority) + _attribute(_OPTIONS, options)
    _ask(what, _NEW_FILTER, _CREATE | _REPLACE, body)


def delete_filter(device: int, where: str, *, handle: int, priority: int) -> None:
    """One that is not there is no error."""
    with contextlib.suppress(Gone):
        try:
            _ask(f"detach from device {device}", _DELETE_FILTER, 0, _filter(device, where, handle, priority))
        except KernelError as e:
            if e.code != errno.EINVAL:  # there is no clsact
                raise
