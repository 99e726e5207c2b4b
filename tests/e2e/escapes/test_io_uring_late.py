"""io_uring: what was asked for while free, to be done later, by the ring's own threads, when the process is frozen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.escapes.loose import Loose, quiet
from tests.rig.build import program
from tests.rig.emulated import patience
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

LATE_S = patience(0.4)  # longer than a kill takes
SCRIPT = """
late, target, file, ms = sys.argv[1:]
started = subprocess.Popen([late, target, "4001", file, ms], stdout=subprocess.PIPE, text=True)
say("asked", started.stdout.readline().strip())
go()
started.kill()
"""


@pytest.fixture
def file() -> object:
    path = Path("/tmp", f"ks-test-{os.getpid()}-late")
    path.touch()
    path.chmod(0o666)
    yield path
    path.unlink()


@pytest.mark.usefixtures("ears")
@pytest.mark.parametrize("cut", [False, True])
def test_io_uring_late(
    loose: Callable[..., Loose], user: str, far: FarSide, counter: Counter, file: Path, cut: bool
) -> None:
    """Not cut, both things are done: the attempt is a real one."""
    script = loose(SCRIPT, program("late"), far.far4, file, int(LATE_S * 1000), user=user)
    script.ready()
    if script.said["asked"] != "asked":
        pytest.skip(f"no io_uring with a thread of its own here: {script.said['asked']}")
    if not cut:
        counter.wait_for(1)
        end = time.monotonic() + LATE_S + patience(5)
        while not file.stat().st_size:
            assert time.monotonic() < end
            time.sleep(0.01)
        return
    since = script.kill()
    assert quiet(counter, since, LATE_S + 0.3)
    assert file.stat().st_size == 0
    script.thaw()
    script.go()
    script.results()
    assert quiet(counter, since)
