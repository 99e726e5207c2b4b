"""Rules that root sets up after the cut: others' packets are sent elsewhere by NAT, and the kernel asks the link for an address
of root's choice (32 bits of it in each question)."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, judge
from tests.e2e.escapes.test_multicast_join import reports
from tests.rig.island import Island

SCRIPT = """
uplink, inner, target, secret, when = sys.argv[1:]
def run(command):
    if subprocess.run(command.split(), capture_output=True).returncode:
        raise OSError(errno.EOPNOTSUPP, command)
if when == "cut":
    go()
attempt("nat", lambda: run(f"iptables -t nat -A PREROUTING -i {inner} -p udp --dport 4010 -j DNAT --to {target}:4001"))
attempt("question", lambda: run(f"ip neigh replace {secret} dev {uplink} use"))
"""


def seen(frames: list[bytes], secret: str) -> set[str]:
    """Which of the two came."""
    asked = any(f[12:14] == b"\x08\x06" and f[38:42] == socket.inet_aton(secret) for f in list(frames))
    sent = any(f[12:14] == b"\x08\x00" and f[23] == 17 and f[36:38] == (4001).to_bytes(2) for f in list(frames))
    return {name for name, came in (("question", asked), ("nat", sent)) if came}


def stirred(island: Island) -> bool:
    """A packet of somebody else's comes by. Always False."""
    with island.socket_in(island.container, socket.AF_INET, socket.SOCK_DGRAM) as talks:
        talks.sendto(b"x", (island.far4, 4010))
    return False


@pytest.mark.skipif(not shutil.which("iptables"), reason="there is no iptables here")
@pytest.mark.parametrize("alone", [True, False])
def test_rules(loose: Callable[..., Loose], shared_daemon: Daemon, alone: bool) -> None:
    with Island() as island, reports(island) as frames:
        secret = f"{island.far4.rpartition('.')[0]}.99"
        script = start(loose, island, secret, "free")
        said = script.results()
        able = {way for way, outcome in said.items() if outcome == "done"}
        if "question" not in able:
            pytest.skip(f"the kernel does neither: {said}")
        shared_daemon.wait_for(f"free, all come: {able}", lambda: stirred(island) or seen(frames, secret) >= able)
    with Island() as island, reports(island) as frames, contextlib.ExitStack() as others:
        secret = f"{island.far4.rpartition('.')[0]}.99"
        if not alone:
            enter = ["nsenter", f"--net={island.host_netns}", "cat"]
            other = others.enter_context(subprocess.Popen(enter, stdin=subprocess.PIPE))
            assert other.stdin
            others.callback(other.stdin.close)
        script = start(loose, island, secret, "cut")
        script.ready()
        script.sever()
        script.go()
        script.results()
        stirred(island)
        time.sleep(0.3)
        if alone:
            judge(shared_daemon, "sealed_namespaces", seen(frames, secret), always=False)
        else:
            judge(shared_daemon, "no_kernel_senders", seen(frames, secret), always=False)


def start(loose: Callable[..., Loose], island: Island, secret: str, when: str) -> Loose:
    prefix = ("nsenter", f"--net={island.host_netns}")
    return loose(SCRIPT, island.near_device, island.inner_device, island.far4, secret, when, prefix=prefix)
