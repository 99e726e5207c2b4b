"""Moving out: root owns every cgroup.procs, and writes to none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from killswitch.kernel import cgroupfs
from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside

SCRIPT = """
cgroups, parent = sys.argv[1:]
def write(path, text="0"):
    with open(path, "w") as file:
        file.write(text)
attempt("root", lambda: write(f"{cgroups}/cgroup.procs"))
attempt("root, by pid", lambda: write(f"{cgroups}/cgroup.procs", str(os.getpid())))
attempt("threads", lambda: write(f"{cgroups}/cgroup.threads"))
attempt("parent", lambda: write(f"{cgroups}{parent}/cgroup.procs"))
attempt("a new one", lambda: os.mkdir(f"{cgroups}/ks-test-escape"))
attempt("a new one inside", lambda: os.mkdir(f"{cgroups}{parent}/ks-test-escape"))
attempt("permissions", lambda: os.chmod(f"{cgroups}/cgroup.procs", 0o666))
for line in open("/proc/self/mountinfo"):
    point, kind = line.split()[4], line.split(" - ")[1].split()[0]
    if kind == "cgroup":
        attempt(f"v1 {point}", lambda: write(f"{point}/cgroup.procs"))
        attempt(f"v1 agent {point}", lambda: os.close(os.open(f"{point}/release_agent", os.O_WRONLY)))
go()
"""


def test_leave_cgroup(inside: Callable[..., Inside], user: str, shared_daemon: Daemon) -> None:
    script = inside(SCRIPT, cgroupfs.find_mount(), shared_daemon.cgroup_parent, user=user)
    script.ready()
    [cgroup] = [p for p in shared_daemon.cgroup_dir.iterdir() if p.is_dir()]
    inside_now = (cgroup / "cgroup.procs").read_text().split()
    assert len(inside_now) == 1
    assert Path(f"/proc/{inside_now[0]}/cgroup").read_text().splitlines()[-1].endswith(cgroup.name)
    script.go()
    tried = script.results()
    assert {"EROFS", "EACCES", "EPERM", "ENOENT"} >= set(tried.values()), tried
    assert tried["root"] in (("EROFS",) if user == "root" else ("EROFS", "EACCES"))
    assert (cgroupfs.find_mount() / "cgroup.procs").stat().st_mode & 0o777 == 0o644
