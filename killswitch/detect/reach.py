"""How widely a workload reaches into the internal network: distinct hosts and ports that it tried within a short window.

Counted by workload and not by process, because a scan by a shell loop is a new process for every port. Whether anyone
answered does not matter here: a try counts. Loopback is left out (test suites open a port of their own for every server).
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

FANOUT = ("network.fanout.hosts", "network.fanout.ports")  # the fields, in the order that ``feed`` gives their values
WINDOW_NS = 10_000_000_000
MAX_ENDPOINTS = 8192  # remembered at most; a scan is long since called one by then
_SHARED = ipaddress.ip_network(
    "100.64.0.0/10"
)  # carriers' and clouds' inner addresses: not "private" by the registry's word


@lru_cache(maxsize=4096)
def is_internal(address: str) -> bool:
    """Private, link-local or shared address space, and not loopback. False for what is no address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback or ip.is_unspecified or ip.is_multicast:
        return False
    return ip.is_private or ip.is_link_local or (ip.version == 4 and ip in _SHARED)


class Reach:
    """Of one workload. ``feed`` costs the same however much is remembered."""

    __slots__ = ("_hosts_of_port", "_ports_of_host", "_seen")

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, int], int] = OrderedDict()  # endpoint -> last tried, oldest first
        self._hosts_of_port: Counter[int] = Counter()
        self._ports_of_host: Counter[str] = Counter()

    def feed(self, time_ns: int, address: str, port: int) -> tuple[int, int]:
        """Note a try. (hosts that were tried at this port, ports that were tried at this host) in the window, this one too;
        (0, 0) when the address is not internal."""
        if not is_internal(address):
            return 0, 0
        endpoint = address, port
        if endpoint not in self._seen:
            self._hosts_of_port[port] += 1
            self._ports_of_host[address] += 1
        self._seen[endpoint] = time_ns
        self._seen.move_to_end(endpoint)
        while len(self._seen) > MAX_ENDPOINTS or time_ns - next(iter(self._seen.values())) > WINDOW_NS:
            self._forget_oldest()
        return self._hosts_of_port[port], self._ports_of_host[address]

    def _forget_oldest(self) -> None:
        (address, port), _ = self._seen.popitem(last=False)
        _less(self._hosts_of_port, port)
        _less(self._ports_of_host, address)


def _less(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
