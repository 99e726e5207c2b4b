"""Datagrams to somebody on the link who has not yet told where: they wait in the kernel, behind all that could drop them, and go
when he answers. Any user has them wait; an accomplice answers seconds after the cut."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.farside import Counter, Packet
from tests.rig.netns import FarSide, ip

SCRIPT = """
def send(*targets):
    for target in targets:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        udp = socket.socket(family, socket.SOCK_DGRAM)
        for _ in range(10):
            udp.sendto(b"secret", (target, 4001))
known, *targets = sys.argv[1:]
go()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while not line(0.02):                        # until it has been judged: what is held till then is lost
    udp.sendto(b"x", (known, 4009))
say("ready", True)
while not line(0.2):                         # again and again: whoever else is cut off has what waits dropped, too
    send(*targets[:2])
send(*targets[2:])
say("sent", True)
go()
"""
AGAIN_MS = 200  # after which the kernel asks again for the address


@pytest.fixture
def patient(far: FarSide) -> FarSide:
    """Who is asked for at the link is asked for often, and for long."""
    for family in ("ipv4", "ipv6"):
        asked = Path("/proc/sys/net", family, "neigh", far.near_device)
        (asked / "retrans_time_ms").write_text(str(AGAIN_MS))
        (asked / "mcast_solicit").write_text("1000")
    return far


@pytest.mark.parametrize("then", ["kill", "sever", "end and kill"])
def test_neighbour(
    loose: Callable[..., Loose], user: str, patient: FarSide, counter: Counter, shared_daemon: Daemon, then: str
) -> None:
    first, second = (
        [f"{patient.far4.rpartition('.')[0]}.{n}", f"{patient.far6.rpartition(':')[0]}:{n}"] for n in (71, 72)
    )
    script = loose(SCRIPT, patient.far4, *first, *second, user=user)
    script.ready()
    script.go()
    counter.wait_for(1)
    script.go()
    script.ready()
    assert not waited(counter)
    answer(patient, first)
    shared_daemon.wait_for("free, what waited is sent", lambda: {p.version for p in waited(counter)} == {4, 6})
    script.go()
    script.hear_of("sent")
    if then == "end and kill":
        os.kill(script.process.pid, signal.SIGKILL)
        script.process.wait(10)
    since = script.sever() if then == "sever" else script.kill()
    answer(patient, second)
    assert quiet(counter, since, 4 * AGAIN_MS / 1000), counter.since(since)


def waited(counter: Counter) -> list[Packet]:
    return [p for p in list(counter.packets) if p.destination_port == 4001]


def answer(far: FarSide, addresses: list[str]) -> None:
    """The far side has these addresses from now on, and tells nobody who does not ask."""
    for address in addresses:
        six = ("nodad",) if ":" in address else ()
        ip("-n", far.name, "address", "add", f"{address}/{64 if six else 24}", "dev", far.far_device, *six)
