"""A host of a test's own, as far as the network goes: a namespace that stands for the host's, its uplink to a far side, and
a container behind it for which it forwards. What cuts "the host" off cuts this one, never the machine."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.rig.netns import FarSide, inside, ip

T = TypeVar("T")


class Island(FarSide):
    """``near4`` is the host's address on the uplink, ``far4`` the far side's, ``container4`` the container's."""

    def __init__(self, label: str = "ks-test") -> None:
        super().__init__(label)
        self.host = f"{self.name}-host"
        self.container = f"{self.name}-ct"
        number = self.near_device.rpartition("-")[2]
        self.inner_device, self.container_device = f"ksi{number}", f"ksc{number}"
        self.inner4, self.container4 = "198.51.100.1", "198.51.100.2"

    @property
    def host_netns(self) -> Path:
        return Path("/run/netns", self.host)

    def _build(self) -> None:
        for name in (self.name, self.host, self.container):
            ip("netns", "add", name)
        far, host, container = ("-n", self.name), ("-n", self.host), ("-n", self.container)
        add = (*host, "link", "add")
        peer = ("type", "veth", "peer", "name")
        ip(*add, self.near_device, *peer, self.far_device, "netns", self.name)
        ip(*add, self.inner_device, *peer, self.container_device, "netns", self.container)
        for where, device, addresses in (
            (host, self.near_device, (f"{self.near4}/24", f"{self.near6}/64")),
            (far, self.far_device, (f"{self.far4}/24", f"{self.far6}/64")),
            (host, self.inner_device, (f"{self.inner4}/24",)),
            (container, self.container_device, (f"{self.container4}/24",)),
        ):
            for address in addresses:
                ip(*where, "address", "add", address, "dev", device, *(("nodad",) if ":" in address else ()))
            ip(*where, "link", "set", device, "up")
            ip(*where, "link", "set", "lo", "up")
        ip(*container, "route", "add", "default", "via", self.inner4)
        ip(*far, "route", "add", "198.51.100.0/24", "via", self.near4)
        inside(self.host, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))

    def remove(self) -> None:
        for name in (self.name, self.host, self.container):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def in_host(self, function: Callable[[], T]) -> T:
        """Call it in a thread that lives in the host's namespace."""
        return inside(self.host, function)

    def socket_in(self, namespace: str, family: int, kind: int, proto: int = 0) -> socket.socket:
        """Usable from here, whatever namespace it lives in."""
        return inside(namespace, lambda: socket.socket(family, kind, proto))

    def command(self, *command: str, namespace: str = "") -> list[str]:
        """A command as it is to be started so that it runs in the host's namespace (or another), with the mounts of all."""
        return ["nsenter", f"--net=/run/netns/{namespace or self.host}", *command]


def has_xdp() -> bool:
    """Whether this kernel makes AF_XDP sockets."""
    try:
        socket.socket(44, socket.SOCK_RAW, 0).close()
    except OSError as e:
        if e.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
            return False
        raise
    return True
