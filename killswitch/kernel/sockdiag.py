"""NETLINK_SOCK_DIAG: list the inet sockets of a network namespace, and destroy single ones (what ``ss -K`` does).

The owner of a destroyed socket gets ECONNABORTED. The kernel names for each socket the cgroup that made it, so what a
workload made is told without asking its processes, wherever the descriptor is by now.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from killswitch.errors import KernelError
from killswitch.kernel import netns, syscalls

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_INET_DIAG_CGROUP_ID = 21

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI48s")  # inet_diag_req_v2: family, protocol, ext, states, id
_MESSAGE = struct.Struct("=BBBB48sIIIII")  # inet_diag_msg: family, state, timer, retrans, id, …, uid, inode
_ID = struct.Struct("!HH16s16s")  # inet_diag_sockid up to the addresses, all in network order
_ATTRIBUTE = struct.Struct("=HH")

_TIME_WAIT, _SYN_RECV = 6, 3
# All states but TIME_WAIT and half-open connections (neither has an owner or a cgroup any more or yet; the latter go
# with their listener) and BOUND_INACTIVE (13: no packet can come of it, and it cannot be destroyed).
_STATES = 0x1FFF & ~(1 << _TIME_WAIT) & ~(1 << _SYN_RECV) & ~(1 << 12)
STATE_NAMES = {1: "established", 2: "syn-sent", 3: "syn-recv", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait"}
STATE_NAMES |= {7: "close", 8: "close-wait", 9: "last-ack", 10: "listen", 11: "closing", 12: "syn-recv"}

# What can have a diag module with a destroy. Other kinds are met through their descriptors: see ``sockets``.
PROTOCOLS = {
    socket.IPPROTO_TCP: "tcp",
    socket.IPPROTO_UDP: "udp",
    136: "udplite",
    socket.IPPROTO_RAW: "raw",
}
# Of raw sockets the kernel destroys the first one whose addresses fit and looks at no cookie (raw_diag_destroy): it may be
# somebody else's. The programs judge each packet that one sends, which is what a shut one would come to.
NOT_DESTROYED = frozenset({socket.IPPROTO_RAW})
_BATCH = 64  # destroy requests in one datagram: their answers have to fit into the receive buffer


@dataclass(frozen=True, slots=True)
class InetSocket:
    """One socket as the kernel lists it. ``identity`` is the kernel's own inet_diag_sockid, cookie included."""

    family: int
    protocol: int
    state: int
    source_ip: str
    source_port: int
    destination_ip: str
    destination_port: int
    uid: int
    inode: int  # 0 = no descriptor leads to it (not yet accepted, or closed and lingering)
    cgroup: int  # that made it; 0 = the kernel does not tell
    identity: bytes

    @property
    def transport(self) -> str:
        return PROTOCOLS.get(self.protocol, str(self.protocol))

    def __str__(self) -> str:
        state = STATE_NAMES.get(self.state, str(self.state))
        source, destination = (
            f"{ip}:{port}" if self.family == socket.AF_INET else f"[{ip}]:{port}"
            for ip, port in ((self.source_ip, self.source_port), (self.destination_ip, self.destination_port))
        )
        return f"{self.transport} {state} {source} > {destination}"


class Diag:
    """A sock_diag connection into one network namespace (None: our own). Use as a context manager."""

    def __init__(self, namespace_fd: int | None = None) -> None:
        kind = (socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        try:
            self._socket = socket.socket(*kind) if namespace_fd is None else netns.socket_in(namespace_fd, *kind)
        except OSError as e:
            raise syscalls.error("open NETLINK_SOCK_DIAG", e) from e
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.settimeout(2.0)  # the kernel answers at once, or never
        self._sequence = 0
        self.missing: set[str] = set()  # protocols of which this kernel can list nothing

    def __enter__(self) -> Diag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def dump(self) -> list[InetSocket]:
        """Every inet socket of the namespace. What the kernel has no diag module for is named in ``missing``."""
        found: list[InetSocket] = []
        for protocol, name in PROTOCOLS.items():
            for family in (socket.AF_INET, socket.AF_INET6):
                try:
                    found += self._dump(family, protocol)
                except KernelError as e:
                    if e.code not in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
                        raise
                    self.missing.add(name)
        return found

    def _dump(self, family: int, protocol: int) -> list[InetSocket]:
        self._sequence += 1
        body = _REQUEST.pack(family, protocol, 0, _STATES, bytes(48))
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, flags, self._sequence, 0)
        found: list[InetSocket] = []
        self._send(header + body)
        for kind, sequence, payload in self._answers():
            if sequence != self._sequence:
                continue
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):  # a protocol without a diag module is told in either
                if code := -struct.unpack_from("=i", payload)[0]:
                    raise syscalls.error(f"list {PROTOCOLS[protocol]} sockets", code)
                return found
            found.append(parse_message(payload, protocol))
        return found

    def destroy(self, sockets: Sequence[InetSocket]) -> list[tuple[InetSocket, int]]:
        """Destroy each; the errno for each that could not be (ENOENT is no failure: it was gone by then)."""
        failed: list[tuple[InetSocket, int]] = []
        for first in range(0, len(sockets), _BATCH):
            batch = sockets[first : first + _BATCH]
            numbered: dict[int, InetSocket] = {}
            packet = b""
            for s in batch:
                self._sequence += 1
                numbered[self._sequence] = s
                body = _REQUEST.pack(s.family, s.protocol, 0, _STATES, s.identity)
                length, flags = _HEADER.size + len(body), _NLM_F_REQUEST | _NLM_F_ACK
                packet += _HEADER.pack(length, _SOCK_DESTROY, flags, self._sequence, 0) + body
            self._send(packet)
            for _, sequence, payload in self._answers():
                answered = numbered.pop(sequence, None)
                code = -struct.unpack_from("=i", payload)[0]
                if answered is not None and code not in (0, errno.ENOENT):
                    failed.append((answered, code))
                if not numbered:
                    break
        return failed

    def _send(self, packet: bytes) -> None:
        try:
            self._socket.send(packet)
        except OSError as e:
            raise syscalls.error("ask NETLINK_SOCK_DIAG", e) from e

    def _answers(self) -> Iterator[tuple[int, int, bytes]]:
        """(type, sequence, payload) of what comes in; the caller stops when it has what it asked for."""
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except OSError as e:
                raise syscalls.error("read NETLINK_SOCK_DIAG", e) from e
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
                yield kind, sequence, data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3


def parse_message(payload: bytes, protocol: int) -> InetSocket:
    """An inet_diag_msg with its attributes."""
    family, state, _, _, identity, _, _, _, uid, inode = _MESSAGE.unpack_from(payload)
    source_port, destination_port, source, destination = _ID.unpack_from(identity)
    size = 4 if family == socket.AF_INET else 16
    cgroup, offset = 0, _MESSAGE.size
    while offset + 4 <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if kind == _INET_DIAG_CGROUP_ID and length >= 12:
            cgroup = struct.unpack_from("=Q", payload, offset + 4)[0]
        if length < 4:
            break
        offset += (length + 3) & ~3
    return InetSocket(
        family,
        protocol,
        state,
        socket.inet_ntop(family, source[:size]),
        source_port,
        socket.inet_ntop(family, destination[:size]),
        destination_port,
        uid,
        inode,
        cgroup,
        identity,
    )


def destroy_matching(
    diag: Diag, wanted: Callable[[InetSocket], bool], rounds: int = 8
) -> tuple[list[InetSocket], list[tuple[InetSocket, int]], list[InetSocket]]:
    """Destroy what is wanted, list again, and again while that makes progress: (destroyed, failed, remaining).

    One round is not always enough: the kernel looks a socket up by its addresses and compares the cookie then, so of
    several that listen on one port (SO_REUSEPORT) it finds one at a time; and a listener's accepted connections may
    come to light after it. A UDP socket that was bound to a port by its owner loses its peer, but stays: it remains. So do
    raw ones (``NOT_DESTROYED``), untouched.
    """
    seen: dict[bytes, InetSocket] = {}
    failed: list[tuple[InetSocket, int]] = []
    before: set[bytes] = set()
    for _ in range(rounds):
        present = [s for s in diag.dump() if wanted(s)]
        seen |= {s.identity: s for s in present}
        perishable = [s for s in present if s.protocol not in NOT_DESTROYED]
        now = {s.identity for s in perishable}
        if not perishable or now == before:
            break
        before = now
        failed = diag.destroy(perishable)
    # A listing without any is the proof itself.
    remaining = [s for s in diag.dump() if wanted(s)] if present else []
    left = {s.identity for s in remaining}
    return [s for i, s in seen.items() if i not in left], [f for f in failed if f[0].identity in left], remaining


def _socket_of(fd: int) -> socket.socket:
    """Takes the descriptor over. Raises OSError, and closes it, when it is no socket."""
    found = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd
    )  # any kind: told what it is, it asks for no name
    try:
        domain, kind, protocol = (found.getsockopt(socket.SOL_SOCKET, o) for o in (39, socket.SO_TYPE, 38))
    except OSError:
        found.close()
        raise
    return socket.socket(domain, kind, protocol, fileno=found.detach())  # some kinds (AF_XDP) have none to tell


def duplicate(pid: int, fd: int) -> socket.socket | None:
    """A socket of ours that shares another process's open socket. None when it cannot be had: closed, ended, refused."""
    with contextlib.suppress(KernelError, OSError):
        pidfd = os.pidfd_open(pid)
        try:
            return _socket_of(syscalls.pidfd_getfd(pidfd, fd))
        finally:
            os.close(pidfd)
    return None
