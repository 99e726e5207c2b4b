"""Feeds the service manager's watchdog only while every part makes progress, each proven since the last feed.

A part offers an awaitable that comes back when it has done something real: the ring reader a look at the rings, the
ledger a record that reached the disk (or that its writer answers), the control plane a health check answered over its
own socket. A part that does not answer in time is named, and the watchdog goes hungry: the manager restarts us, and
what is contained stays so meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from killswitch.daemon.notify import notify

log = logging.getLogger("killswitch.watchdog")

Proof = Callable[[], Awaitable[bool]]


async def prove(proofs: Mapping[str, Proof], limit: float) -> dict[str, str]:
    """Ask every part for progress within ``limit`` seconds. The parts that gave none, and why; empty: all did."""
    found: dict[str, str] = {}

    async def ask(part: str, proof: Proof) -> None:
        try:
            async with asyncio.timeout(limit):
                if not await proof():
                    found[part] = "reports no progress"
        except TimeoutError:
            found[part] = f"has not answered within {limit:g} s"
        except Exception as e:
            found[part] = str(e) or type(e).__name__

    await asyncio.gather(*(ask(part, proof) for part, proof in proofs.items()))
    return found


async def feed(
    proofs: Mapping[str, Proof],
    seconds: float,
    report: Callable[[Mapping[str, str]], None],
    send: Callable[..., bool] = notify,
) -> None:
    """Feed a watchdog of ``seconds`` four times in its span, for ever. ``report`` gets what ``prove`` found."""
    interval = seconds / 4
    while True:
        stuck = await prove(proofs, interval)
        report(stuck)
        if not stuck:
            send("WATCHDOG=1")
        for part, why in stuck.items():
            log.error("watchdog not fed: %s %s", part, why)
        await asyncio.sleep(interval)
