"""A user namespace of its own makes anybody root in it: of new namespaces, not of the host's network or mounts."""

from __future__ import annotations

from collections.abc import Callable

from killswitch.kernel import cgroupfs
from tests.e2e.escapes.conftest import Inside, silent
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
target, cgroups = sys.argv[1:]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.sendto(b"x", (target, 4001))
go()
attempt("network without a user namespace", lambda: call("unshare", NEWNET))
attempt("mounts without a user namespace", lambda: call("unshare", NEWNS))
attempt("cgroup namespace", lambda: call("unshare", NEWUSER | NEWCGROUP))
attempt("cgroup namespace by clone", lambda: call("syscall", 56, NEWUSER | NEWCGROUP | 17, 0, 0, 0, 0))
CLONE3 = (NEWUSER | NEWCGROUP, 0, 0, 0, 17, 0, 0, 0)
attempt("cgroup namespace by clone3", lambda: call("syscall", 435, struct.pack("=8Q", *CLONE3), 64))
become_root_of_a_user_namespace(NEWNS)
attempt("send as its root", lambda: udp.sendto(b"x", (target, 4001)))
attempt("packet socket of the host", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
attempt("raw socket of the host", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("cgroups writable", lambda: call("mount", None, cgroups.encode(), None, BIND | REMOUNT, None))
attempt("uncover", lambda: call("umount2", b"/sys/fs/bpf", 2))
attempt("cgroup namespace as its root", lambda: call("unshare", NEWCGROUP))
attempt("cgroups again", lambda: call("mount", b"none", b"/mnt", b"cgroup2", 0, None))
attempt("cgroups v1 again", lambda: call("mount", b"none", b"/mnt", b"cgroup", 0, b"freezer"))
attempt("leave", lambda: open(f"{cgroups}/cgroup.procs", "w").write(str(os.getpid())))
hosts = os.readlink("/proc/self/ns/net")
call("unshare", NEWNET)
attempt("back to the host's", lambda: call("setns", os.open("/proc/1/ns/net", os.O_RDONLY), NEWNET))
say("a network of its own", os.readlink("/proc/self/ns/net") != hosts)
attempt("send from it", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (target, 4001)))
attempt("send on the old one", lambda: udp.sendto(b"x", (target, 4001)))
"""


def test_user_namespace(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    script = inside(SCRIPT, far.far4, cgroupfs.find_mount(), user=user)
    script.ready()
    counter.wait_for(1)
    since = script.sever()
    script.go()
    tried = script.results()
    assert silent(counter, since)
    assert tried.pop("a network of its own")  # a device-less one: that is not refused
    assert "done" not in tried.values(), tried
