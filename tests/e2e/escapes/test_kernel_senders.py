"""Having the kernel send: an address announced through a tunnel of its own, a rule that copies what comes by, an answer to who
asks. No socket of the workload's is in it, and it takes CAP_NET_ADMIN."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import Loose, covered, judge, quiet
from tests.rig.farside import Counter
from tests.rig.island import Island

SCRIPT = """
device, target, inner = sys.argv[1:]
import itertools
numbers = itertools.count(1)
def ip(*arguments):
    if subprocess.run(arguments, stdout=subprocess.DEVNULL).returncode:
        raise OSError(errno.EIO, arguments)
ip("ip", "link", "add", "ksv0", "type", "vxlan", "id", "7", "remote", target, "dstport", "4001", "dev", device)
ip("ip", "link", "set", "ksv0", "up")
if os.path.exists("/usr/sbin/iptables"):
    subprocess.run(["iptables", "-t", "mangle", "-A", "PREROUTING", "-i", inner, "-p", "udp", "-j", "TEE", "--gateway", target])
def announce():
    ip("ip", "address", "add", f"fd6b:7000::{next(numbers):x}/128", "dev", "ksv0")   # 64 bits of the workload's choice
insist(announce, every=0.05)
"""


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as made:
        yield made


@pytest.fixture(autouse=True)
def _needs_vxlan() -> None:
    done = subprocess.run(
        ["unshare", "-n", "ip", "link", "add", "ksv0", "type", "vxlan", "id", "7"], capture_output=True
    )
    if done.returncode or not shutil.which("ip"):
        pytest.skip("this kernel has no vxlan devices")


def stirred(island: Island) -> None:
    """Somebody else's packets come by: a question to the host (an answer goes back), and one that a rule may copy."""
    with island.open_socket(kind=2) as asks, island.socket_in(island.container, 2, 2) as talks:
        asks.sendto(b"x", (island.near4, 4009))
        talks.sendto(b"x", (island.inner4, 4010))


def test_in_a_network_namespace_of_its_own(loose: Callable[..., Loose], island: Island, shared_daemon: Daemon) -> None:
    prefix = ("nsenter", f"--net={island.host_netns}")
    with Counter(island) as counter:
        script = loose(SCRIPT, island.near_device, island.far4, island.inner_device, prefix=prefix)
        script.ready()
        stirred(island)
        shared_daemon.wait_for(
            "an announcement and an answer", lambda: {p.protocol for p in counter.packets} >= {1, 17}
        )
        whole = covered(shared_daemon, "sealed_namespaces")
        judge(shared_daemon, "sealed_namespaces", _left(script, counter, island, whole=whole))
        assert shared_daemon.client.release(script.name, "escape test").complete
        before = len(counter.packets)
        stirred(island)
        counter.wait_for(before + 1)


def test_in_one_that_others_live_in(loose: Callable[..., Loose], island: Island, shared_daemon: Daemon) -> None:
    enter = ("nsenter", f"--net={island.host_netns}")
    with Counter(island) as counter, subprocess.Popen([*enter, "cat"], stdin=subprocess.PIPE) as other:
        script = loose(SCRIPT, island.near_device, island.far4, island.inner_device, prefix=enter)
        script.ready()
        left = _left(script, counter, island, whole=False)
        assert other.stdin
        other.stdin.close()
        judge(shared_daemon, "no_kernel_senders", left, always=False)


def _left(script: Loose, counter: Counter, island: Island, *, whole: bool = True) -> object:
    """What gets out while it is severed and runs, and tries. Where it is not ``whole`` the receipt of the kill says so."""
    counter.wait_for(1)
    script.go()
    killed = script._daemon.client.kill(script.name, "escape test")
    assert killed.complete == whole, killed
    assert whole or "4001" in killed.receipts[-1].error, killed
    script.thaw()
    since = time.time_ns()
    script.go()
    script.results()
    stirred(island)
    return [] if quiet(counter, since, 0.3) else counter.since(since)


def test_least_privilege(inside: Callable[..., Inside], user: str) -> None:
    tried = inside(
        """
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        def add():
            kind = struct.pack("=HH8s", 12, 1, b"vxlan")
            body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HH", 4 + len(kind), 18) + kind
            s.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
            code = -struct.unpack_from("=i", s.recv(4096), 16)[0]
            if code:
                raise OSError(code, "add")
        attempt("device", add)
        attempt("rules", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255))
        attempt("netfilter", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).setsockopt(270, 1, 1))
        """,
        user=user,
    ).results()
    assert tried["device"] == tried["rules"] == "EPERM", tried
