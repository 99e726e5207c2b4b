"""Devices and filters that root makes after the cut, in a namespace that others live in: a frame goes into one and comes out at
the uplink. It bears its socket as long as nobody takes it in, and is judged there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.farside import Counter
from tests.rig.island import Island

SCRIPT = """
uplink, source, target, when = sys.argv[1:]
def run(command):
    if subprocess.run(command.split(), capture_output=True).returncode:
        raise OSError(errno.EOPNOTSUPP, command)
def frame(port):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    return b"\\xff" * 6 + b"\\x02" * 6 + b"\\x08\\x00" + head + struct.pack("!HHHH", 4000, port, 8, 0)
def send(device, port):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as s:
        s.bind((device, 0))
        s.send(frame(port))
def macvlan():
    run(f"ip link add ksm0 link {uplink} type macvlan mode bridge")
    run("ip link set ksm0 up")
    send("ksm0", 4001)
def macvlan_elsewhere():
    told, ready = os.pipe(), os.pipe()
    if not os.fork():
        call("unshare", NEWNET)
        os.write(ready[1], b"x")
        os.read(told[0], 1)
        try:
            send("ksm1", 4002)
        except OSError:
            pass
        os._exit(0)
    os.read(ready[0], 1)
    child = int(open(f"/proc/self/task/{threading.get_native_id()}/children").read().split()[-1])
    try:
        run(f"ip link add ksm1 link {uplink} netns {child} type macvlan mode bridge")
        run(f"nsenter -t {child} -n ip link set ksm1 up")
    finally:
        os.write(told[1], b"x")
        os.wait()
ALL = "protocol all u32 match u32 0 0 action mirred egress redirect dev"
def veth():
    run("ip link add ksx0 type veth peer name ksx1")
    run("ip link set ksx0 up")
    run("ip link set ksx1 up")
    run("tc qdisc add dev ksx1 ingress")
    run(f"tc filter add dev ksx1 ingress {ALL} {uplink}")
    send("ksx0", 4003)
def loopback():
    run("tc qdisc add dev lo clsact")
    run(f"tc filter add dev lo egress {ALL} {uplink}")
    send("lo", 4004)
def bridge():   # the last: the uplink is its port from then on
    run("ip link add ksb0 type bridge")
    run("ip link set ksb0 up")
    run(f"ip link set {uplink} master ksb0")
    send("ksb0", 4005)
if when == "cut":
    go()
for way in (macvlan, macvlan_elsewhere, veth, loopback, bridge):
    attempt(way.__name__, way)
"""
PORTS = {"macvlan": 4001, "macvlan_elsewhere": 4002, "veth": 4003, "loopback": 4004, "bridge": 4005}


def ports(counter: Counter, since: int = 0) -> set[int]:
    return {p.destination_port for p in counter.since(since)}


def test_own_devices(loose: Callable[..., Loose], shared_daemon: Daemon) -> None:
    with Island() as island, Counter(island) as counter:
        script = loose(SCRIPT, island.near_device, island.near4, island.far4, "free", prefix=entering(island))
        said = script.results()
        able = {way for way, outcome in said.items() if outcome == "done"}
        assert able & {"veth", "macvlan"}, f"this kernel makes none of these devices: {said}"
        wanted = {PORTS[way] for way in able}
        shared_daemon.wait_for(f"free, all come out: {wanted}", lambda: ports(counter) >= wanted)
    with (
        Island() as island,
        Counter(island) as counter,
        subprocess.Popen([*entering(island), "cat"], stdin=subprocess.PIPE) as other,
    ):
        script = loose(SCRIPT, island.near_device, island.near4, island.far4, "cut", prefix=entering(island))
        script.ready()
        since = script.sever()
        script.go()
        script.results()
        assert quiet(counter, since), counter.since(since)
        assert other.stdin
        other.stdin.close()


def entering(island: Island) -> tuple[str, ...]:
    return ("nsenter", f"--net={island.host_netns}")
