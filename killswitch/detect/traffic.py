"""The connections that one workload has made: what is known of each, and which of them lead outside for long."""

from __future__ import annotations

import ipaddress
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache

from killswitch.events import Burst, Flow

OUTSIDE = (
    "network.outside.flows",
    "network.outside.age",
)  # the fields, in the order that ``outside`` gives their values
MAX_FLOWS = 512  # connections that are remembered
MAX_BURSTS = 128  # of each that are remembered
QUIET_BYTES_A_SECOND = 20_000  # mean over a connection's life, both ways: a pool's jobs and shares are some hundred
SILENT_NS = 180_000_000_000  # nothing for so long, and it does not count as held any more

_INSIDE = tuple(
    ipaddress.ip_network(n)
    for n in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # private
        "169.254.0.0/16", "100.64.0.0/10",  # link-local; carriers' and clouds' inner addresses
        "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


@lru_cache(maxsize=4096)
def is_own(address: str) -> bool:
    """An address of every host's own: loopback, or none at all. False for what is no address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


@lru_cache(maxsize=4096)
def is_inside(address: str) -> bool:
    """Of the networks that nobody is reached by from elsewhere; loopback, too. False for what is no address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return is_own(address) or any(ip.version == n.version and ip in n for n in _INSIDE)


def stays_here(flow: Flow) -> bool:
    """Whether it leads to the host that it came from."""
    return is_own(flow.remote_ip) or (flow.local_port != 0 and flow.local_ip == flow.remote_ip)


def leads_inside(flow: Flow) -> bool:
    return stays_here(flow) or is_inside(flow.remote_ip)


@dataclass(slots=True)
class Connection:
    """What is remembered of one connection. ``complete_ns``: since when none of its bursts is missing."""

    flow: Flow  # as last told
    complete_ns: int
    bursts: deque[Burst] = field(default_factory=lambda: deque(maxlen=MAX_BURSTS))

    def feed(self, flow: Flow) -> None:
        self.flow = flow
        if flow.missed:
            self.bursts.clear()
            self.complete_ns = flow.bursts[0].time_ns if flow.bursts else flow.time_ns
        for burst in flow.bursts:
            if len(self.bursts) == MAX_BURSTS:
                self.complete_ns = self.bursts[1].time_ns
            self.bursts.append(burst)


class Traffic:
    """Of one workload. The connection that was longest silent makes room."""

    __slots__ = ("_moved", "_since_ns", "connections")

    def __init__(self, since_ns: int = 0) -> None:
        """``since_ns``: of what went over connections before, nothing is known."""
        self._since_ns = since_ns
        self._moved: set[int] = set()
        self.connections: dict[int, Connection] = {}  # by cookie, the one that was last told of last

    def feed(self, flow: Flow) -> None:
        known = self.connections.pop(flow.cookie, None)
        if known is None:
            known = Connection(flow, max(flow.began_ns, self._since_ns))
            if len(self.connections) >= MAX_FLOWS:
                del self.connections[next(iter(self.connections))]
        known.feed(flow)
        self.connections[flow.cookie] = known
        if flow.bursts:
            self._moved.add(flow.cookie)

    def take_moved(self) -> frozenset[int]:
        """The cookies of the connections over which something went since the last call."""
        moved, self._moved = frozenset(self._moved), set()
        return moved

    def prune(self, before_ns: int) -> None:
        """Drop the connections that are over and have been silent since then."""
        for cookie, known in list(self.connections.items()):
            if known.flow.closed and known.flow.last_ns < before_ns:
                del self.connections[cookie]

    def outside(self, now_ns: int) -> tuple[int, float]:
        """Connections to the outside that the workload holds now, having made them: how many, and the age in seconds of the
        oldest quiet one (0 = none): something went both ways, little for its age, and not long ago."""
        count, oldest = 0, 0
        for known in self.connections.values():
            flow = known.flow
            if flow.closed or not flow.received_bytes or leads_inside(flow) or now_ns - flow.last_ns > SILENT_NS:
                continue
            count += 1
            age = max(now_ns - flow.began_ns, 1)
            if flow.sent_bytes and (flow.sent_bytes + flow.received_bytes) * 1e9 / age < QUIET_BYTES_A_SECOND:
                oldest = max(oldest, age)
        return count, oldest / 1e9
