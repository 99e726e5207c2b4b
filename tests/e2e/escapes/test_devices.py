"""The host's disks: making a node takes CAP_MKNOD, and the nodes that are there are covered."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside

SCRIPT = """
import stat
directory = sys.argv[1]
attempt("block", lambda: os.mknod(f"{directory}/block", stat.S_IFBLK | 0o600, os.makedev(254, 0)))
attempt("memory", lambda: os.mknod(f"{directory}/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1)))
attempt("port", lambda: call("iopl", 3))
blocks = []
for where, _, names in os.walk("/dev"):
    for name in names:
        try:
            if stat.S_ISBLK(os.stat(f"{where}/{name}").st_mode):
                blocks.append(name)
        except OSError:
            pass
say("disks", blocks)
"""


def test_devices(inside: Callable[..., Inside], user: str, tmp_path: object) -> None:
    tried = inside(SCRIPT, tmp_path, user=user).results()
    assert tried.pop("disks") == []
    assert {"EPERM", "EACCES", "ENOSYS"} >= set(tried.values()), tried
