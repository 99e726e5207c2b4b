"""Packets written to a tun or tap device: they come in as if from a wire, and the host routes them on; no socket sends them."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import Loose, contained
from tests.rig.farside import Counter
from tests.rig.island import Island
from tests.rig.netns import ip

SET_DEVICE, SET_PERSIST, SET_OWNER = 0x400454CA, 0x400454CB, 0x400454CC
TUN, TAP, NO_INFORMATION = 1, 2, 0x1000
PACKET = """
import fcntl
node, name, kind, source, target, router = sys.argv[1:]
tun = os.open(node, os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", name.encode(), int(kind) | 0x1000))
def packet():
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    total = sum(struct.unpack("!10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    whole = head[:10] + struct.pack("!H", checksum) + head[12:] + struct.pack("!HHHH", 4000, 4001, 8, 0)
    return whole if kind == "1" else bytes.fromhex(router) + b"\\x02" * 6 + b"\\x08\\x00" + whole
"""
SCRIPT = PACKET + "insist(lambda: os.write(tun, packet()))"


class Wired(Island):
    """An island with a tun or tap device that an ordinary user may open, as virtual machines and VPNs have them."""

    name_inside = "kst0"

    def add_device(self, node: Path, kind: int) -> str:
        """Its hardware address, as hexadecimal digits."""

        def make() -> None:
            with node.open("r+b", buffering=0) as file:
                fcntl.ioctl(file, SET_DEVICE, struct.pack("16sH22x", self.name_inside.encode(), kind | NO_INFORMATION))
                fcntl.ioctl(file, SET_OWNER, 65534)
                fcntl.ioctl(file, SET_PERSIST, 1)

        self.in_host(make)
        ip("-n", self.host, "address", "add", "192.0.2.1/24", "dev", self.name_inside)
        ip("-n", self.host, "link", "set", self.name_inside, "up")
        address = ["ip", "-n", self.host, "-o", "link", "show", self.name_inside]
        words = subprocess.run(address, capture_output=True, text=True, check=True).stdout.split()
        return words[words.index("link/ether") + 1].replace(":", "") if "link/ether" in words else ""


@pytest.fixture
def node() -> Iterator[Path]:
    """The device's node, for everybody, as hosts have it at /dev/net/tun."""
    with tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as made:
        path = Path(made, "tun")
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(10, 200))
        path.chmod(0o666)
        Path(made).chmod(0o755)
        try:
            path.open("r+b", buffering=0).close()
        except OSError as e:
            pytest.skip(f"this kernel has no tun devices: {e}")
        yield path


@pytest.fixture
def island() -> Iterator[Wired]:
    with Wired() as made:
        yield made


@pytest.mark.parametrize("kind", [TUN, TAP])
def test_in_a_network_namespace_of_its_own(loose: Callable[..., Loose], island: Wired, node: Path, kind: int) -> None:
    router = island.add_device(node, kind)
    prefix = ("nsenter", f"--net={island.host_netns}")
    with Counter(island) as counter:
        script = loose(SCRIPT, node, island.name_inside, kind, "192.0.2.2", island.far4, router, prefix=prefix)
        contained(script, counter)


@pytest.mark.parametrize("kind", [TUN, TAP])
def test_in_one_that_others_live_in(
    loose: Callable[..., Loose], user: str, island: Wired, node: Path, kind: int
) -> None:
    """Those go on to be heard: only what the workload writes is dropped."""
    router = island.add_device(node, kind)
    enter = ("nsenter", f"--net={island.host_netns}")
    with Counter(island) as counter, subprocess.Popen([*enter, "cat"], stdin=subprocess.PIPE) as other:
        script = loose(
            SCRIPT, node, island.name_inside, kind, "192.0.2.2", island.far4, router, user=user, prefix=enter
        )
        contained(script, counter)
        assert other.stdin
        before = len(counter.packets)
        with island.socket_in(island.host, 2, 2) as udp:
            udp.sendto(b"x", (island.far4, 4002))
        assert counter.wait_for(before + 1)[-1].destination_port == 4002
        other.stdin.close()


def test_least_privilege(inside: Callable[..., Inside], user: str, node: Path) -> None:
    """A device of its own takes CAP_NET_ADMIN."""
    script = PACKET.replace("fcntl.ioctl(", 'attempt("device", lambda: fcntl.ioctl(', 1).replace(
        "0x1000))", "0x1000)))", 1
    )
    tried = inside(script, node, "kst1", TUN, "192.0.2.2", "192.0.2.3", "", user=user).results()
    assert tried == {"device": "EPERM"}
