"""The standard health service (grpc.health.v1), answered from the daemon's own view of its parts.

``""`` is serving while every part works; ``killswitch.v1.KillSwitchService`` while orders are taken, whatever else is
broken: a full disk does not stop a kill. ``killswitch.v1.Proof`` is serving only while the last self-test has passed and is
not too old. A part is asked for by its name: ring, ledger, control, policy, dataplane, proof.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from killswitch.control.service import Service
from killswitch.v1 import killswitch_service_pb2

SERVICE = killswitch_service_pb2.DESCRIPTOR.services_by_name["KillSwitchService"].full_name
PROOF = f"{SERVICE.rpartition('.')[0]}.Proof"
POLL = 1.0  # seconds between looks, for Watch

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    def __init__(self, service: Service, closing: asyncio.Event, poll: float = POLL) -> None:
        self._service = service
        self._closing = closing
        self._poll = poll

    async def _look(self, name: str) -> int:
        if name == SERVICE:
            return int(NOT_SERVING if self._closing.is_set() else SERVING)
        now = await self._service.status()
        if name == PROOF:
            return int(SERVING if now.proof.stands and not self._closing.is_set() else NOT_SERVING)
        health = now.health
        if not name:
            return int(SERVING if all(h.ok for h in health) and not self._closing.is_set() else NOT_SERVING)
        for part in health:
            if part.part == name:
                return int(SERVING if part.ok else NOT_SERVING)
        return int(UNKNOWN)

    async def Check(self, request: Any, context: Any) -> Any:
        status = await self._look(request.service)
        if status == UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"health: no part is called {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        last = None
        while True:
            closing = self._closing.is_set()
            status = await self._look(request.service)
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status)
            if closing:
                return
            try:
                await asyncio.wait_for(self._closing.wait(), self._poll)
            except TimeoutError:
                pass  # nothing but time has passed
