"""What goes through while the whole host is cut off, as an operator writes it; one entry a line of ``host_allow``:

in tcp 22 from 198.51.100.0/24     they may begin it: our port 22 (a range: 8000-8010), from there (or anywhere)
out tcp 203.0.113.5 443            we may begin it: to that address, port 443 (or any port)
in udp 51820                       of UDP nobody is said to begin: both ways
address 203.0.113.7                everything with that address (or network)
device eth1                        everything over that device of the host
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

ANY_PORT = (0, 65535)
PROTOCOLS = {"tcp": 6, "udp": 17}
EITHER, THEY, WE = 0, 1, 2  # who may begin a TCP connection
MOST = 48  # entries; the data plane has some more, for what the daemon finds out by itself

_FORMS = (
    "write 'in tcp PORT [from ADDRESS]', 'out tcp ADDRESS [PORT]' (or udp), 'address ADDRESS' or 'device NAME'; an ADDRESS "
    "may be a network such as 198.51.100.0/24"
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry. Seen from the host: ``local`` is its own port, the network is the far side's."""

    text: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None  # None = any
    protocol: int = 0  # 0 = any
    local: tuple[int, int] = ANY_PORT
    remote: tuple[int, int] = ANY_PORT
    device: str = ""
    begun_by: int = EITHER

    @property
    def address(self) -> tuple[bytes, bytes]:
        """(address, mask) of 16 bytes, IPv4 mapped into IPv6."""
        if self.network is None:
            return bytes(16), bytes(16)
        address, mask = self.network.network_address.packed, self.network.netmask.packed
        if len(address) == 4:
            return bytes(10) + b"\xff\xff" + address, b"\xff" * 12 + mask
        return address, mask

    @property
    def lets_in(self) -> bool:
        """Whether somebody outside can reach us by it."""
        return self.begun_by != WE


# Without its lease a host loses its address, and so the way in.
DHCP = (
    Allowed("dhcp", ipaddress.ip_network("0.0.0.0/0"), PROTOCOLS["udp"], (68, 68), (67, 67)),
    Allowed("dhcp", ipaddress.ip_network("::/0"), PROTOCOLS["udp"], (546, 546), (547, 547)),
)


def in_port(port: int, why: str) -> Allowed:
    """Our TCP port, from anywhere."""
    return Allowed(why, None, PROTOCOLS["tcp"], (port, port), ANY_PORT, "", THEY)


def parse(text: str) -> Allowed:
    """Raises ValueError, which says what to write instead."""
    match text.split():
        case ["address", address]:
            return Allowed(text, _network(address))
        case ["device", name] if len(name) < 16 and "/" not in name:
            return Allowed(text, device=name)
        case ["in", "tcp" | "udp" as protocol, port]:
            return Allowed(text, None, PROTOCOLS[protocol], _ports(port), ANY_PORT, "", _begun(protocol, THEY))
        case ["in", "tcp" | "udp" as protocol, port, "from", address]:
            network = _network(address)
            return Allowed(text, network, PROTOCOLS[protocol], _ports(port), ANY_PORT, "", _begun(protocol, THEY))
        case ["out", "tcp" | "udp" as protocol, address]:
            return Allowed(text, _network(address), PROTOCOLS[protocol], begun_by=_begun(protocol, WE))
        case ["out", "tcp" | "udp" as protocol, address, port]:
            network = _network(address)
            return Allowed(text, network, PROTOCOLS[protocol], ANY_PORT, _ports(port), "", _begun(protocol, WE))
    raise ValueError(f"has an entry that is not understood: {text!r}; {_FORMS}")


def _begun(protocol: str, by: int) -> int:
    return by if protocol == "tcp" else EITHER


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"has {text!r}, which is no address and no network; names are not looked up") from None


def _ports(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if low.isdigit() and (not _ or high.isdigit()):
        first, last = int(low), int(high or low)
        if 1 <= first <= last <= 65535:
            return first, last
    raise ValueError(f"has {text!r}, which is no port from 1 to 65535, nor a range of them such as 8000-8010")
