from __future__ import annotations

import asyncio
import ctypes
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from killswitch.commands import Containment, Outcome, Receipt, Step
from killswitch.contain.evidence import Limits
from killswitch.contain.protected import Protected
from killswitch.contain.switch import Switch
from killswitch.kernel import cgroupfs, procfs, syscalls
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import FORKING, SLEEPER, actor, ref

CUT = Containment(severed=True, frozen=True)
SECRET = "hunter2-do-not-keep"
SUSPECT = """
import ctypes, mmap, os, socket, sys, time
jit = mmap.mmap(-1, 8192, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
far = socket.create_server(("127.0.0.1", 0)); near = socket.create_connection(far.getsockname())
named = socket.socket(socket.AF_UNIX); named.bind("\\0ks-test-%d" % os.getpid()); named.listen()
notes = open("/etc/passwd")
fd = os.memfd_create("payload")
os.write(fd, open("/bin/sleep", "rb").read())
child = os.fork()
if child == 0:
    os.execve(fd, ["kworker/0:1", "600"], {"TOKEN": sys.argv[1]})
while open("/proc/%d/comm" % child).read() == open("/proc/self/comm").read():
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""


def capture(switch: Switch, cgroup: Cgroup, hot: tuple[tuple[int, int, int], ...] = ()) -> Receipt:
    receipts = asyncio.run(
        switch.contain(ref(cgroup), CUT, capture=True, incident="inc-7", hot=hot, wait_for_capture=True)
    )
    assert [r.step for r in receipts][-1] is Step.CAPTURE
    return receipts[-1]


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_what_is_kept_of_a_suspect(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    switch = Switch(plane, tmp_path / "evidence", protected=Protected())
    os.environ["KS_TEST_SECRET"] = SECRET
    try:
        with actor(watched, SUSPECT, "an argument") as a:
            [child] = [p for p in cgroupfs.processes(watched.path) if p != a.pid]
            receipt = capture(switch, watched)
            environment = procfs.read_bytes(a.pid, "environ")
    finally:
        del os.environ["KS_TEST_SECRET"]
    assert receipt.outcome is Outcome.DONE, receipt
    assert SECRET.encode() in environment  # the workload did have it
    folder = tmp_path / "evidence" / "inc-7"
    assert receipt.proof["folder"] == str(folder)

    manifest_bytes = (folder / "manifest.json").read_bytes()
    assert receipt.proof["manifest_sha256"] == hashlib.sha256(manifest_bytes).hexdigest()
    manifest = json.loads(manifest_bytes)
    files = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file() and f.name != "manifest.json"}
    assert {n: hashlib.sha256(f.read_bytes()).hexdigest() for n, f in files.items()} == {
        n: f["sha256"] for n, f in manifest["files"].items()
    }
    assert manifest["complete"] is True and manifest["left_out"] == []
    assert manifest["cpu_ns_meanwhile"] == 0
    assert manifest["containment"] == "severed+frozen" and manifest["workload"]["id"] == watched.id
    assert all(SECRET.encode() not in f.read_bytes() for f in files.values())

    rows = {p["pid"]: p for p in read(folder, "processes.json")}
    parent, memfd = rows[a.pid], rows[child]
    assert parent["command_line"][-1] == "an argument" and parent["uid"] == 0
    assert "KS_TEST_SECRET" in parent["environment_names"] and memfd["environment_names"] == ["TOKEN"]
    python = hashlib.sha256(Path(sys.executable).resolve().read_bytes()).hexdigest()
    assert parent["file"]["sha256"] == python and "kept_as" not in parent["file"]
    sleep = hashlib.sha256(Path("/bin/sleep").read_bytes()).hexdigest()
    assert memfd["ppid"] == a.pid and memfd["executable"].startswith("/memfd:payload")
    assert memfd["file"]["sha256"] == sleep and memfd["file"]["kept_as"] == f"executables/{sleep}"
    assert memfd["command_line"] == ["kworker/0:1", "600"]

    opened = {f["leads_to"] for p in read(folder, "files.json") if p["pid"] == a.pid for f in p["files"]}
    assert "/etc/passwd" in opened
    sockets = read(folder, "sockets.json")
    assert {s["state"] for s in sockets["destroyed"]} >= {"listen", "established"}
    assert any(s["path"] == f"@ks-test-{a.pid}" and s["listening"] for s in sockets["unix"])
    [memory] = [m for m in read(folder, "memory.json") if m["pid"] == a.pid]
    assert {"permissions": "rwxs", "bytes": 8192} in [
        {k: m[k] for k in ("permissions", "bytes")} for m in memory["mappings"]
    ]


def test_hot_functions_are_named(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    if subprocess.run(["/usr/bin/python3", "-c", "import bcc"], capture_output=True, check=False).returncode:
        pytest.skip("bcc is not installed: apt install python3-bpfcc")
    switch = Switch(plane, tmp_path / "evidence", protected=Protected())
    code = """
import ctypes, time
libc = ctypes.CDLL(None)
print("ready", ctypes.cast(libc.qsort, ctypes.c_void_p).value, flush=True)
time.sleep(600)
"""
    with actor(watched, code) as a:
        address = int(a.first.split()[1])
        receipt = capture(switch, watched, ((a.pid, 64, 1), (a.pid, address + 4, 30)))
    assert receipt.outcome is Outcome.DONE, receipt
    first, second = read(tmp_path / "evidence" / "inc-7", "hot.json")
    assert "qsort" in first["function"] and first["function"].endswith("+0x4")
    assert first["address"] == f"{address + 4:#x}" and "libc" in first["module"]
    assert second["function"] == ""


def test_what_takes_too_long_is_left_out_and_said_so(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    switch = Switch(plane, tmp_path / "evidence", protected=Protected(), limits=Limits(seconds=0.0))
    with actor(watched, SLEEPER):
        receipt = capture(switch, watched)
    assert receipt.outcome is Outcome.DONE and receipt.proof["left_out"] == 1
    manifest = read(tmp_path / "evidence" / "inc-7", "manifest.json")
    assert manifest["complete"] is False and manifest["left_out"] == ["1 of 1 processes: time is up"]


def test_bounds_are_kept_and_said_so(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    limits = Limits(processes=3, files=1, hash_bytes=10)
    switch = Switch(plane, tmp_path / "evidence", protected=Protected(), limits=limits)
    with actor(watched, FORKING, "20"):
        assert capture(switch, watched).outcome is Outcome.DONE
    folder = tmp_path / "evidence" / "inc-7"
    left_out = "\n".join(read(folder, "manifest.json")["left_out"])
    assert len(read(folder, "processes.json")) == 3
    assert "processes: more than 3" in left_out and "bytes are too many" in left_out
    assert "beyond the first 1" in left_out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / f"ks-test-{os.getpid()}-disk"
    point.mkdir()
    syscalls.mount("ks-test", str(point), "tmpfs", 0, "size=16k")
    yield point
    ctypes.CDLL(None).umount2(os.fsencode(point), 2)


def test_a_full_disk_fails_the_capture_and_nothing_else(plane: DataPlane, watched: Cgroup, small_disk: Path) -> None:
    switch = Switch(plane, small_disk / "evidence", protected=Protected())
    desired = CUT | Containment(terminated=True)
    with actor(watched, FORKING, "100"):
        receipts = asyncio.run(switch.contain(ref(watched), desired, capture=True, incident="inc-7"))
    by_step = {r.step: r for r in receipts}
    failed = by_step.pop(Step.CAPTURE)
    assert (
        failed.outcome is Outcome.FAILED and "No space left on device" in failed.error and "make room" in failed.error
    )
    assert {r.outcome for r in by_step.values()} == {Outcome.DONE} and Step.TERMINATE in by_step
    left = [f.name for f in (small_disk / "evidence" / "inc-7").iterdir()]
    assert "manifest.json" not in left and not any(n.endswith(".partial") for n in left)


def test_the_loop_goes_on_while_500_processes_are_captured(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    switch = Switch(plane, tmp_path / "evidence", protected=Protected())

    async def scene() -> int:
        turns = 0
        order = asyncio.create_task(
            switch.contain(ref(watched), CUT, capture=True, incident="inc-7", wait_for_capture=True)
        )
        while not order.done():
            await asyncio.sleep(0)
            turns += 1
        assert order.result()[-1].proof["processes"] == 501
        return turns

    children = """
import os, sys, time
for _ in range(500):
    if os.fork() == 0:
        time.sleep(600)
print("ready", flush=True)
time.sleep(600)
"""
    with actor(watched, children):
        assert asyncio.run(scene()) > 20
