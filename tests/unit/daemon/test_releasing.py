"""A repair that falls into the moment between a release and the note of it. That moment is one turn of the event loop, which no
test can hit from outside: here the switch waits in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from killswitch.commands import FREE, Containment
from killswitch.daemon.core import Core
from killswitch.daemon.workloads import Workload

CUT_OFF = Containment(severed=True, frozen=True)


class Switch:
    """Lets go, and then takes a while to come back."""

    def __init__(self) -> None:
        self.let_go, self.come_back = asyncio.Event(), asyncio.Event()
        self.repaired: list[Mapping[int, Containment]] = []

    async def release(self, *_: object, **__: object) -> list[Any]:
        self.let_go.set()
        await self.come_back.wait()
        return []

    async def reconcile(self, desired: Mapping[int, Containment]) -> list[Any]:
        self.repaired.append(dict(desired))
        return []

    async def guard_devices(self) -> None: ...


async def nothing() -> None: ...


def core_of(switch: Switch, *workloads: Workload, mount: Path) -> Core:
    quiet = SimpleNamespace(look=lambda *_: None, desired=lambda *_: None, released=lambda *_: None)
    core = Core.__new__(Core)
    core.__dict__.update(
        mount=mount, switch=switch, workloads=list(workloads), incidents={}, host=SimpleNamespace(reconcile=nothing),
        places=quiet, upkeep=quiet, records=quiet, spending=quiet, plane=SimpleNamespace(containment=lambda _: FREE),
        continuing=None, tell=lambda _: None, _guarding=None, _tasks=set(), _releasing=Counter(),
    )  # fmt: skip
    return core


def test_what_is_being_released_is_not_repaired(tmp_path: Path) -> None:
    async def play() -> None:
        one, other = (Workload(n, f"w{n}", f"/w{n}", (), True, 0.0) for n in (7, 8))
        one.desired = other.desired = CUT_OFF
        for w in (one, other):
            (tmp_path / w.name).mkdir()
        switch = Switch()
        core = core_of(switch, one, other, mount=tmp_path)
        release = asyncio.create_task(core.release(one, "all", "test"))
        await switch.let_go.wait()
        await core.reconcile()
        switch.come_back.set()
        await release
        await core.reconcile()
        assert switch.repaired == [{8: CUT_OFF}, {8: CUT_OFF}]
        assert one.desired == FREE

    asyncio.run(play())
