"""io_uring connects and sends without the system calls of that name."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.escapes.conftest import Inside, silent
from tests.rig.build import program
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
import subprocess
def ring():
    done = subprocess.run([sys.argv[1], sys.argv[2], "4001"], capture_output=True, text=True)
    return [int(x) for x in done.stdout.split()]
say("free", [ring() for _ in range(3)][-1])  # on a crowded host the first may still be held when it ends
go()
say("severed", ring())
"""


def test_io_uring(inside: Callable[..., Inside], user: str, far: FarSide, counter: Counter) -> None:
    """The program prints the results of a UDP sendmsg and a TCP connect, both through a ring."""
    script = inside(SCRIPT, program("ring"), far.far4, user=user)
    script.ready()
    counter.wait_for(2)
    since = script.sever()
    script.go()
    tried = script.results()
    assert tried["free"][0] == 1
    assert all(result < 0 for result in tried["severed"]), tried
    assert silent(counter, since)
