"""Programs from memory, through the dynamic linker, deleted ones: whatever runs is in the cgroup."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.escapes.loose import Loose, contained
from tests.rig.build import program
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
import glob, shutil, tempfile
sender, target = sys.argv[1:]
arguments = ["nothing-to-see", "udp", target, "4001", "2", "100000"]
def from_memory():
    fd = os.memfd_create("x")
    with open(sender, "rb") as file:
        os.write(fd, file.read())
    return subprocess.Popen(arguments, executable=f"/proc/self/fd/{fd}", pass_fds=[fd])
def by_the_linker():
    [linker, *_] = glob.glob("/lib*/ld-linux-*")  # ld-linux.so.2 would be of another architecture
    return subprocess.Popen([linker, sender, *arguments[1:]])
def deleted():
    with tempfile.TemporaryDirectory(prefix="ks-test-") as directory:
        shutil.copy(sender, f"{directory}/x")
        return subprocess.Popen(arguments, executable=f"{directory}/x")
def every():
    started = [way() for way in (from_memory, by_the_linker, deleted)]
    codes = [one.wait() for one in started]
    if any(codes):
        raise OSError(errno.EPERM, str(codes))
insist(every, go_on=lambda: None)
"""


@pytest.mark.usefixtures("ears")
def test_memfd(loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter) -> None:
    assert contained(loose(SCRIPT, program("sender"), far.far4, user=user), counter, arrive=3)["cut"] != "done"
