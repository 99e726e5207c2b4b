from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from killswitch.daemon.watchdog import feed, prove


async def alive() -> bool:
    return True


async def dead() -> bool:
    return False


async def silent() -> bool:
    await asyncio.Event().wait()
    return True


async def broken() -> bool:
    raise OSError("the socket is gone")


def test_every_part_must_prove_progress() -> None:
    assert asyncio.run(prove({"ring": alive, "ledger": alive}, 1)) == {}
    found = asyncio.run(prove({"a": alive, "b": dead, "c": silent, "d": broken}, 0.01))
    assert found.keys() == {"b", "c", "d"}
    assert "0.01 s" in found["c"]
    assert found["d"] == "the socket is gone"


@pytest.mark.parametrize(("proof", "fed"), [(alive, True), (dead, False), (silent, False)])
def test_fed_only_while_all_make_progress(proof: object, fed: bool) -> None:
    sent: list[str] = []
    reports: list[Mapping[str, str]] = []

    async def scenario() -> None:
        done = asyncio.Event()

        def report(stuck: Mapping[str, str]) -> None:
            reports.append(stuck)
            if len(reports) == 3:
                done.set()

        task = asyncio.create_task(
            feed({"ring": alive, "part": proof}, 0.04, report, lambda *lines: sent.extend(lines))  # type: ignore[dict-item]
        )
        await done.wait()
        task.cancel()

    asyncio.run(scenario())
    assert ("WATCHDOG=1" in sent) is fed
    assert all(bool(r) is not fed for r in reports)
