"""Its own cgroup's files: thaw, limits, subtree."""

from __future__ import annotations

from collections.abc import Callable

from killswitch.kernel import cgroupfs
from tests.e2e.escapes.conftest import Inside

SCRIPT = """
own = sys.argv[1] + [x for x in open("/proc/self/cgroup") if x.startswith("0::")][0].strip()[3:]
say("files", len(os.listdir(own)))
for name in sorted(os.listdir(own)):
    if os.path.isfile(f"{own}/{name}"):
        attempt(name, lambda: os.close(os.open(f"{own}/{name}", os.O_WRONLY)))
attempt("child", lambda: os.mkdir(f"{own}/child"))
attempt("remove", lambda: os.rmdir(own))
"""


def test_own_cgroup_files(inside: Callable[..., Inside], user: str) -> None:
    tried = inside(SCRIPT, cgroupfs.find_mount(), user=user).results()
    assert tried.pop("files") > 5
    assert "cgroup.freeze" in tried
    assert {"EROFS", "EACCES"} >= set(tried.values()), tried
