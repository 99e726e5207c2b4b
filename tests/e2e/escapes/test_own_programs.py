"""BPF programs of its own, as full root: one that is run for a test and sends what it was given, frames for XDP, one that lies
before ours at a device. What lies before ours is put behind it when the daemon looks."""

from __future__ import annotations

import ctypes
import fcntl
import struct
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside
from tests.e2e.escapes.loose import Loose, covered, judge, quiet
from tests.rig.farside import Counter
from tests.rig.island import Island

BPF = """
import contextlib, resource
with contextlib.suppress(ValueError):  # before 5.11 programs count as locked memory
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (-1, -1))
kept = []
def at(data):
    kept.append(ctypes.create_string_buffer(data, len(data)))
    return ctypes.addressof(kept[-1])
def bpf(command, attribute):
    return call("syscall", 321, command, ctypes.create_string_buffer(attribute + bytes(144 - len(attribute))), 144)
def load(kind, code):
    return bpf(5, struct.pack("=IIQQ", kind, len(code) // 8, at(code), at(b"GPL\\0")))
def step(code, register, value):
    return struct.pack("=BBhi", code, register, 0, value)
END = step(0x95, 0, 0)
"""
SCRIPT = (
    BPF
    + """
device, source, target, how = sys.argv[1:]
index = socket.if_nametoindex(device)
def frame():
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 34, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    return b"\\xff" * 6 + b"\\x02" * 6 + b"\\x08\\x00" + head + struct.pack("!HHHH", 4000, 4001, 14, 0) + b"secret" + bytes(20)
def run(program, context=b"", flags=0, batch=0):
    data = frame()
    bpf(10, struct.pack("=IIIIQQIIIIQQIII", program, 0, len(data), 0, at(data), 0, 1, 0, len(context), 0,
                        at(context) if context else 0, 0, flags, 0, batch))
if how == "clone":    # bpf_clone_redirect(packet, index, 0)
    program = load(3, step(0xB4, 2, index) + step(0xB4, 3, 0) + step(0x85, 0, 13) + step(0xB4, 0, 0) + END)
    go_out = lambda: run(program)
elif how == "frames":  # bpf_redirect(index, 0), with BPF_F_TEST_XDP_LIVE_FRAMES
    program = load(6, step(0xB4, 1, index) + step(0xB4, 2, 0) + step(0x85, 0, 23) + END)
    go_out = lambda: run(program, struct.pack("=IIIIII", 0, len(frame()), 0, index, 0, 0), 2, 1)
else:                  # "pass", and nobody behind it is asked
    program = load(3, step(0xB4, 0, 0) + END)
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    packet.bind((device, 0))
    go_out = lambda: packet.send(frame())
attempt("free", go_out)
go()
if how == "before":
    attempt("put", lambda: bpf(8, struct.pack("=IIIIII", index, program, 47, 8, 0, 0)))  # at its egress, BPF_F_BEFORE
for _ in range(5):
    attempt("cut", go_out)
go()
attempt("later", go_out)
"""
)


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as made:
        # A device of this kind takes frames for XDP when the one at its other end gathers what it receives (ETHTOOL_SGRO).
        value = ctypes.create_string_buffer(struct.pack("=II", 0x2C, 1))
        with made.open_socket() as there:
            fcntl.ioctl(there, 0x8946, struct.pack("16sQ16x", made.far_device.encode(), ctypes.addressof(value)))
        yield made


@pytest.mark.parametrize("how", ["clone", "frames", "before"])
@pytest.mark.parametrize("alone", [True, False])
def test_own_programs(
    loose: Callable[..., Loose], island: Island, shared_daemon: Daemon, how: str, alone: bool
) -> None:
    enter = ("nsenter", f"--net={island.host_netns}")
    with Counter(island) as counter, subprocess.Popen([*enter, "cat"], stdin=subprocess.PIPE) as other:
        assert other.stdin
        if alone:
            other.stdin.close()
            other.wait()
        script = loose(SCRIPT, island.near_device, island.near4, island.far4, how, prefix=enter)
        script.ready()
        if script.said["free"] != "done":
            pytest.skip(f"this kernel runs no such program: {script.said}")
        counter.wait_for(1)
        seen = len(shared_daemon.log())
        since = script.sever()
        script.go()
        script.ready()
        left = [] if quiet(counter, since) else counter.since(since)
        if how == "before" and left:
            shared_daemon.wait_for("it is put behind", lambda: "was not asked first" in shared_daemon.log()[seen:])
            after = counter.packets[-1].unix_ns
            script.go()
            script.results()
            assert quiet(counter, after)
        other.stdin.close()
        if how == "clone" and alone and covered(shared_daemon, "sealed_namespaces"):
            assert not left
        else:
            judge(shared_daemon, "no_own_programs", left, always=how != "before")


def test_least_privilege(inside: Callable[..., Inside], user: str) -> None:
    tried = inside(BPF + 'attempt("load", lambda: load(3, step(0xB4, 0, 0) + END))', user=user).results()
    assert tried == {"load": "EPERM"}
