"""Its own part of the cgroup tree, as full root: children, threads, another mount of it, a thaw of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from killswitch.kernel import cgroupfs
from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
own, point, target = sys.argv[1:]
relative = open("/proc/self/cgroup").read().split("0::")[1].split()[0]
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
def send():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (target, 4001))
def below():
    os.makedirs(f"{own}/a/b", exist_ok=True)
    write(f"{own}/a/b/cgroup.procs", "0")
    send()
def threaded():
    os.makedirs(f"{own}/t", exist_ok=True)
    write(f"{own}/t/cgroup.type", "threaded")
    write(f"{own}/cgroup.procs", "0")
    write(f"{own}/t/cgroup.threads", str(threading.get_native_id()))
    send()
def mounted():
    call("unshare", NEWNS)
    call("mount", None, b"/", None, 0x44000, None)
    call("mount", b"none", point.encode(), b"cgroup2", 0, None)
    write(f"{point}{relative}/cgroup.freeze", "0")
    send()
def namespace():
    call("unshare", NEWCGROUP)
    send()
send()
go()
for way in (below, threaded, mounted, namespace):
    attempt(way.__name__, way)
attempt("rename", lambda: os.rename(own, own + "-other"))
attempt("remove", lambda: os.rmdir(own))
"""


def test_cgroup_tree(loose: Callable[..., Loose], far: FarSide, counter: Counter, shared_daemon: Daemon) -> None:
    with tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as point:
        own = shared_daemon.cgroup_dir / f"loose{Loose.made + 1}"
        script = loose(SCRIPT, own, point, far.far4)
        script.ready()
        counter.wait_for(1)
        since = script.sever()
        script.go()
        said = script.results()
        assert quiet(counter, since)
    assert "done" not in said.values(), said
    assert Path(own).is_dir()
    assert cgroupfs.find_mount() in own.parents
