"""bpf(2) against what contains it, as full root: its programs detached, its record in the kernel's map overwritten. The daemon
puts both back when it looks, every few seconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from killswitch.kernel import abi, pins
from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, covered, judge, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

pytestmark = pytest.mark.usefixtures("ears")
SCRIPT = """
target, how, pins, maps, slot, severed = sys.argv[1:]
def send():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (target, 4001))
def bpf(command, attribute):
    return call("syscall", 321, command, ctypes.create_string_buffer(attribute + bytes(128 - len(attribute))), 128)
def opened(path):
    name = ctypes.create_string_buffer(path.encode())
    return bpf(7, struct.pack("=QII", ctypes.addressof(name), 0, 0))
def detach():
    for name in os.listdir(pins):
        bpf(34, struct.pack("=I", opened(f"{pins}/{name}")))
def overwrite():
    import mmap
    table = opened(f"{maps}/workload_by_cgroup")
    key, value = ctypes.create_string_buffer(struct.pack("=Q", int(slot))), ctypes.create_string_buffer(4)
    element = struct.pack("=I4xQQQ", table, ctypes.addressof(key), ctypes.addressof(value), 0)
    bpf(1, element)                                       # BPF_MAP_LOOKUP_ELEM: where it is kept
    number, = struct.unpack("=I", value.raw)
    bpf(3, element[:16])                                  # BPF_MAP_DELETE_ELEM: it is nobody's, for whoever looks by its cgroup
    records = opened(f"{maps}/workloads")
    size = int(next(x for x in open(f"/proc/self/fdinfo/{records}") if x.startswith("value_size")).split()[1])
    with mmap.mmap(records, (number + 1) * size) as memory:
        memory[number * size + int(severed)] = 0
send()
go()
attempt("cut", send)
attempt("tampered", detach if how == "detach" else overwrite)
attempt("escaped", send)
end = time.monotonic() + 20
while time.monotonic() < end:
    try:
        send()
    except OSError:
        break
    time.sleep(0.02)
say("put back after", 20 - (end - time.monotonic()))
go()
attempt("again", send)
"""


@pytest.mark.parametrize("how", ["detach", "overwrite"])
def test_bpf_tampering(
    loose: Callable[..., Loose], far: FarSide, counter: Counter, shared_daemon: Daemon, how: str
) -> None:
    (generation,) = pins.generations(shared_daemon.pin_dir)
    name = f"loose{Loose.made + 1}"
    workload = shared_daemon.watched(name).id
    script = loose(
        SCRIPT, far.far4, how, generation.cgroup(workload), generation.maps, workload, abi.WORKLOAD.offset("severed")
    )
    script.ready()
    counter.wait_for(1)
    before = len(shared_daemon.log())
    since = script.sever()
    script.go()
    script.hear_of("put back after")
    left = [] if quiet(counter, since) else counter.since(since)
    script.ready()
    if left:
        shared_daemon.wait_for("all is put back", lambda: "attached again" in shared_daemon.log()[before:])
    back = counter.packets[-1].unix_ns
    script.go()
    said = script.results()
    assert (said["cut"], said["again"]) == ("EPERM", "EPERM"), said
    assert covered(shared_daemon, "all_tampering_seen") or said["tampered"] == "done", said
    assert quiet(counter, back)
    judge(shared_daemon, "all_tampering_seen", left, always=False)
