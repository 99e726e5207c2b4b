"""The host's disks, and what leads out of it by no network: serial lines, the console, the kernel's log, RDMA. Making a node
takes CAP_MKNOD, and the nodes that are there are covered."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

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


WIRES = """
import glob
patterns = ("ttyS*", "hvc*", "console", "kmsg", "vport*", "ipmi*", "infiniband/*", "vfio/*", "uio*")
say("wires", [path for p in patterns for path in glob.glob(f"/dev/{p}") if os.stat(path).st_rdev != os.stat("/dev/null").st_rdev])
"""


def test_wires(inside: Callable[..., Inside], user: str) -> None:
    assert stat.S_ISCHR(Path("/dev/kmsg").stat().st_mode), "what everybody's messages are written to, and sent on from"
    assert inside(WIRES, user=user).results() == {"wires": []}
