"""Which devices that lead out of the host are covered for what `killswitch run` starts."""

from __future__ import annotations

import os

import pytest

from killswitch.cli import surroundings


def test_the_terminal_that_it_is_started_at_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    name = os.ttyname(follower)
    monkeypatch.setattr(surroundings, "WIRES", (name, "/dev/nul[l]", "/dev/there-is-none*"))
    try:
        assert surroundings.wires((follower, leader)) == ["/dev/null"]
        assert surroundings.wires((leader,)) == [name, "/dev/null"]
    finally:
        os.close(leader)
        os.close(follower)
