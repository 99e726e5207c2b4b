"""How widely a workload reaches into the internal network: what it tried, and what of it never answered.

Counted by workload and not by process, because a scan by a shell loop is a new process for every port. Two windows: a
fast one for a scan that hurries, and one of ten minutes for a scan that does not. A try counts whether or not anybody
answered; what was refused or left unanswered is counted besides, because a service that is there answers, and so are
endpoints that are silent when they are sent datagrams. Loopback counts only when refused: test suites open a port of their
own for every server.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from killswitch.events import Connect, Transport, Unanswered

T = TypeVar("T")
Endpoint = tuple[str, int]

FANOUT = (
    "network.fanout.hosts",
    "network.fanout.ports",
    "network.fanout.endpoints",
    "network.fanout.slow_hosts",
    "network.fanout.slow_ports",
    "network.fanout.unanswered_hosts",
    "network.fanout.unanswered_ports",
    "network.fanout.silent",
)
WINDOW_NS = 10_000_000_000
SILENT_WINDOW_NS = 15_000_000_000  # the fast one, and what datagrams are waited for
SLOW_WINDOW_NS = 600_000_000_000
MAX_ENDPOINTS = 8192  # remembered at most, in each window; a scan is long since called one by then
_SHARED = ipaddress.ip_network(
    "100.64.0.0/10"
)  # carriers' and clouds' inner addresses: not "private" by the registry's word


@lru_cache(maxsize=4096)
def is_internal(address: str) -> bool:
    """Private, link-local or shared address space, and not loopback. False for what is no address."""
    ip = _parsed(address)
    if ip is None or ip.is_loopback or ip.is_unspecified or ip.is_multicast:
        return False
    return ip.is_private or ip.is_link_local or (ip.version == 4 and ip in _SHARED)


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """This machine, to itself; connecting to the unspecified address is that, too."""
    ip = _parsed(address)
    return ip is not None and (ip.is_loopback or ip.is_unspecified)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def port_of(event: Connect | Unanswered) -> int:
    """The port that was tried; 0 where there is none (a ping's number is its own)."""
    return event.destination_port if event.transport in (Transport.TCP, Transport.UDP) else 0


class Reach:
    """Of one workload. Noting costs the same however much is remembered."""

    __slots__ = ("_fast", "_silent", "_slow")

    def __init__(self) -> None:
        self._fast = _Tried()
        self._slow = _Answers()
        self._silent: OrderedDict[Endpoint, int] = OrderedDict()  # told of last, oldest first

    def tried(self, time_ns: int, address: str, port: int) -> Mapping[str, int]:
        """Note a try. The fields ``FANOUT``, this try counted; all 0 for an address that is neither internal nor loopback."""
        internal = is_internal(address)
        if internal:
            self._fast.note((address, port), time_ns)
        if internal or is_loopback(address):
            self._slow.tried((address, port), time_ns)
        return self._counts(time_ns, address, port)

    def unanswered(self, time_ns: int, address: str, port: int) -> Mapping[str, int]:
        """Note that a try of this endpoint came to nothing: refused, unreachable, or given up."""
        if is_internal(address) or is_loopback(address):
            self._slow.unanswered((address, port), time_ns)
        return self._counts(time_ns, address, port)

    def came_back(self, address: str, port: int) -> None:
        """Note that a datagram has come from this endpoint."""
        self._silent.pop((address, port), None)

    def silent(self, time_ns: int, address: str, port: int) -> Mapping[str, int]:
        """Note that nothing has come back from this endpoint to the datagrams that it was sent."""
        if is_internal(address):
            self._silent[address, port] = time_ns
            self._silent.move_to_end((address, port))
        return self._counts(time_ns, address, port)

    def _counts(self, time_ns: int, address: str, port: int) -> Mapping[str, int]:
        fast, slow = self._fast, self._slow
        fast.forget(time_ns)
        slow.forget(time_ns)
        silent = self._silent
        while silent and (len(silent) > MAX_ENDPOINTS or time_ns - next(iter(silent.values())) > SILENT_WINDOW_NS):
            silent.popitem(last=False)
        if is_internal(address):
            counts: tuple[int, ...] = (
                fast.hosts_of_port[port], fast.ports_of_host[address], len(fast.seen),
                slow.internal_hosts, slow.ports_of_host[address], slow.dead_hosts, slow.dead_ports_of_host[address],
                len(silent),
            )  # fmt: skip
        else:
            counts = (0, 0, 0, 0, 0, 0, slow.dead_ports_of_host[address], 0)
        return dict(zip(FANOUT, counts, strict=True))


class _Tried:
    """Endpoints within ``WINDOW_NS``."""

    __slots__ = ("hosts_of_port", "ports_of_host", "seen")

    def __init__(self) -> None:
        self.seen: OrderedDict[Endpoint, int] = OrderedDict()  # last tried, oldest first
        self.hosts_of_port: Counter[int] = Counter()
        self.ports_of_host: Counter[str] = Counter()

    def note(self, endpoint: Endpoint, time_ns: int) -> None:
        if endpoint not in self.seen:
            self.ports_of_host[endpoint[0]] += 1
            self.hosts_of_port[endpoint[1]] += 1
        self.seen[endpoint] = time_ns
        self.seen.move_to_end(endpoint)

    def forget(self, now_ns: int) -> None:
        while self.seen and (len(self.seen) > MAX_ENDPOINTS or now_ns - next(iter(self.seen.values())) > WINDOW_NS):
            (address, port), _ = self.seen.popitem(last=False)
            _less(self.hosts_of_port, port)
            _less(self.ports_of_host, address)


class _Answers:
    """Endpoints within ``SLOW_WINDOW_NS``, and which of them have answered none of their tries."""

    __slots__ = ("_seen", "dead_hosts", "dead_ports_of_host", "internal_hosts", "ports_of_host")

    def __init__(self) -> None:
        self._seen: OrderedDict[Endpoint, list[int]] = OrderedDict()  # [last heard of, tries, of them in vain]
        self.ports_of_host: Counter[str] = Counter()
        self.dead_ports_of_host: Counter[str] = Counter()
        self.internal_hosts = 0  # keys of ports_of_host that are not loopback
        self.dead_hosts = 0  # the same of dead_ports_of_host

    def tried(self, endpoint: Endpoint, time_ns: int) -> None:
        self._note(endpoint, time_ns, 1, 0)

    def unanswered(self, endpoint: Endpoint, time_ns: int) -> None:
        self._note(endpoint, time_ns, 0, 1)

    def _note(self, endpoint: Endpoint, time_ns: int, tries: int, in_vain: int) -> None:
        entry = self._seen.get(endpoint)
        if entry is None:
            entry = self._seen[endpoint] = [time_ns, 0, 0]
            self.internal_hosts += self._more(self.ports_of_host, endpoint[0])
        before = _dead(entry)
        entry[0] = time_ns
        entry[1] += tries
        entry[2] += in_vain
        self._seen.move_to_end(endpoint)
        if _dead(entry) and not before:
            self.dead_hosts += self._more(self.dead_ports_of_host, endpoint[0])
        elif before and not _dead(entry):
            self.dead_hosts -= self._fewer(self.dead_ports_of_host, endpoint[0])

    def forget(self, now_ns: int) -> None:
        seen = self._seen
        while seen and (len(seen) > MAX_ENDPOINTS or now_ns - next(iter(seen.values()))[0] > SLOW_WINDOW_NS):
            (address, _), entry = seen.popitem(last=False)
            self.internal_hosts -= self._fewer(self.ports_of_host, address)
            if _dead(entry):
                self.dead_hosts -= self._fewer(self.dead_ports_of_host, address)

    @staticmethod
    def _more(counter: Counter[str], address: str) -> int:
        """1 when this is a new internal host in it."""
        counter[address] += 1
        return int(counter[address] == 1 and not is_loopback(address))

    @staticmethod
    def _fewer(counter: Counter[str], address: str) -> int:
        _less(counter, address)
        return int(address not in counter and not is_loopback(address))


def _dead(entry: list[int]) -> bool:
    """Every try was in vain. While one is under way nothing is said; a client that waits for its server ends up answered."""
    _, tries, in_vain = entry
    return in_vain > 0 and in_vain >= tries


def _less(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
