"""What goes over the connections that workloads make, taken out of the kernel's map now and then."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from killswitch.events import Burst, Flow, Transport
from killswitch.kernel import abi
from killswitch.kernel.decode import address
from killswitch.kernel.maps import Map, Mapped

PAUSE_NS = 10_000_000  # a burst that was added to so lately may still grow: it is told next time
SETTLED_NS = 4 * PAUSE_NS  # the mark of activity lags by up to 20 ms: after this nothing is left untold
FORGET_NS = 180_000_000_000  # of what has no end that could be seen (UDP, a connect that nobody answered)

_HEAD = struct.Struct(abi.TRAFFIC.codec.format.removesuffix(f"{2 * abi.TRAFFIC_WAY.size}s"))
_WAY = struct.Struct(abi.TRAFFIC_WAY.codec.format.removesuffix(f"{abi.TRAFFIC_BURSTS * abi.TRAFFIC_BURST.size}s"))
_BURST = abi.TRAFFIC_BURST.codec
_TRANSPORTS = {6: Transport.TCP, 17: Transport.UDP}
_SIZE = abi.TRAFFIC.size
_NOTHING_TOLD = (0, 0, 0, 0)
_STDIO = ("stdin", "stdout", "stderr")

Told = tuple[int, int, int, int]  # of a connection: last_ns, bursts sent, bursts received, holder and what of


@dataclass(frozen=True, slots=True)
class _Way:
    """One direction, as it lies in the map."""

    total: int  # bytes of payload
    last_ns: int
    count: int  # bursts so far
    finished: bool
    at: int  # where the bursts lie

    @classmethod
    def read(cls, raw: bytes, at: int) -> _Way:
        total, last_ns, _, count, finished = _WAY.unpack_from(raw, at)
        return cls(total, last_ns, count, finished != 0, at + _WAY.size)

    def untold(self, told: int, now: int, *, closed: bool) -> tuple[int, int, int]:
        """(first, behind the last) of the bursts to tell now, and how many were overwritten before anybody saw them."""
        end = self.count if closed or now - self.last_ns > PAUSE_NS else max(self.count - 1, 0)
        first = max(min(told, end), end - abi.TRAFFIC_BURSTS + (end < self.count), 0)
        return first, end, max(first - told, 0)

    def bursts(self, raw: bytes, first: int, end: int, *, sent: bool) -> Iterator[Burst]:
        for number in range(first, end):
            at = self.at + number % abi.TRAFFIC_BURSTS * _BURST.size
            began, size, span_us, packets = _BURST.unpack_from(raw, at)
            yield Burst(began, span_us * 1000, size, packets, sent)


class Traffic:
    def __init__(self, traffic: Map, activity: Mapped) -> None:
        self._map, self._activity = traffic, activity
        self._seen_ns = -1
        self._told: dict[int, Told] = {}

    def take(self) -> list[Flow]:
        """Every connection that something has happened to since the last call, in the order in which they were made. No
        system call while nothing has happened to any. Raises KernelError."""
        mark = int.from_bytes(self._activity.memory[:8], "little")
        now = time.monotonic_ns()
        if mark == self._seen_ns:
            return []
        self._seen_ns = mark if now - mark > SETTLED_NS else -1
        keys, values = self._map.read_packed()
        told: dict[int, Told] = {}
        flows: list[Flow] = []
        for number in range(len(keys) // 8):
            key = keys[8 * number : 8 * number + 8]
            cookie = int.from_bytes(key, "little")
            flow, state = _read(cookie, values, number * _SIZE, self._told.get(cookie, _NOTHING_TOLD), now)
            if flow is not None:
                flows.append(flow)
            if state is None:  # it is over, or was never anything: room for others
                self._map.delete(key)
            else:
                told[cookie] = state
        self._told = told
        return sorted(flows, key=lambda f: f.began_ns)


def _read(cookie: int, raw: bytes, at: int, told: Told, now: int) -> tuple[Flow | None, Told | None]:
    """What is new about a connection, None = nothing; and what is told of it then, None = it needs no more telling."""
    (
        workload, start, began, last_ns, holder_start, local, remote, comm, pid, uid, holder, local_port, remote_port,
        family, protocol, reset, stdio,
    ) = _HEAD.unpack_from(raw, at)  # fmt: skip
    sent = _Way.read(raw, at + _HEAD.size)
    received = _Way.read(raw, at + _HEAD.size + abi.TRAFFIC_WAY.size)
    held = holder << 3 | stdio
    if told == (last_ns, sent.count, received.count, held):
        idle = now - last_ns > FORGET_NS and (protocol != 6 or not received.count)
        return None, None if idle else told
    closed = reset != 0 or (sent.finished and received.finished)
    first_sent, end_sent, missed_sent = sent.untold(told[1], now, closed=closed)
    first_received, end_received, missed_received = received.untold(told[2], now, closed=closed)
    bursts = [
        *sent.bursts(raw, first_sent, end_sent, sent=True),
        *received.bursts(raw, first_received, end_received, sent=False),
    ]
    flow = Flow(
        now, workload, pid, start, uid, comm.partition(b"\0")[0], cookie, _TRANSPORTS.get(protocol, Transport.OTHER),
        address(family, local), local_port, address(family, remote), remote_port, began, last_ns, sent.total,
        received.total, closed, missed_sent + missed_received, tuple(sorted(bursts, key=lambda b: b.time_ns)), holder,
        holder_start, tuple(name for bit, name in enumerate(_STDIO) if stdio >> bit & 1),
    )  # fmt: skip
    return flow, None if closed else (last_ns, end_sent, end_received, held)
