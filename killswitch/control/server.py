"""Serves a ``Service`` over gRPC, on one unix socket a role."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from killswitch.control import convert, roles, sockets, status
from killswitch.control.health import SERVICE, HealthServicer
from killswitch.control.lagging import DEPTH, Lagging
from killswitch.control.methods import Methods, check_order
from killswitch.control.orders import Orders
from killswitch.control.remembered import Memory, Remembered
from killswitch.control.service import Service
from killswitch.errors import ConfigError, TimedOut
from killswitch.v1 import killswitch_service_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

READ_SECONDS = 30.0  # for a read whose caller set no deadline
VIEW_CALLS = 64  # at once: what the view group does can never crowd out an order
OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4 << 20))


class ControlServer:
    """``start``, then ``stop``. The sockets' files go with it."""

    def __init__(
        self,
        service: Service,
        *,
        admin: Path,
        view: Path,
        group: str = "killswitch",
        stream_depth: int = DEPTH,
        memory: Memory | None = None,
    ) -> None:
        self.orders = Orders()
        self._remembered = Remembered(memory)
        self._service = service
        self._methods = Methods(service)
        self._paths = {roles.ADMIN: admin, roles.VIEW: view}
        self._group = group
        self._depth = stream_depth
        self._closing = asyncio.Event()
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        """Listen on both sockets. Raises ConfigError when one cannot be had; then none is left behind."""
        for path in self._paths.values():
            sockets.prepare(path)
        try:
            for role, path in self._paths.items():
                server = self._server(role)
                self._servers.append(server)
                with sockets.private():
                    try:
                        server.add_insecure_port(f"unix:{path}")
                    except RuntimeError as error:
                        raise ConfigError(f"{path}: cannot listen there: {error}") from error
                if role == roles.VIEW:
                    sockets.open_to(path, self._group)
                await server.start()
        except BaseException:
            await self.stop(0)
            raise

    async def stop(self, grace: float = 5.0) -> None:
        """Take no more calls, end the streams, let what was ordered finish; at most ``grace`` seconds."""
        self._closing.set()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        self._servers.clear()
        if left := await self.orders.finish(grace):
            log.error("control: stopping while %d orders are still being carried out; the next start goes on", left)
        for path in self._paths.values():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s: cannot be removed: %s", path, error.strerror)

    def _server(self, role: str) -> grpc.aio.Server:
        limit = VIEW_CALLS if role == roles.VIEW else None
        server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=limit)
        pb_grpc.add_KillSwitchServiceServicer_to_server(self._servicer(role), server)  # type: ignore[no-untyped-call]
        from grpc_health.v1 import health, health_pb2_grpc

        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(self._service, self._closing), server)
        if role == roles.ADMIN:
            from grpc_reflection.v1alpha import reflection

            reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    def _servicer(self, role: str) -> Any:
        servicer = pb_grpc.KillSwitchServiceServicer()
        for name in roles.READS | roles.ORDERS:
            if name == "StreamEvents":
                call: object = self._stream_events(role)
            elif name == "GetEvidence":
                call = self._get_evidence(role)
            else:
                call = self._unary(name, role)
            setattr(servicer, name, call)
        return servicer

    # --- one call -----------------------------------------------------------------------------------------------

    def _unary(self, name: str, role: str) -> Callable[[Any, Any], Awaitable[Any]]:
        method: Callable[[Any, str], Awaitable[Any]] = getattr(self._methods, name)

        async def order(request: Any) -> Any:
            check_order(name, request)
            content = name.encode() + b"\0" + request.SerializeToString(deterministic=True)
            return await self.orders.once(
                request.request_id,
                content,
                lambda: self._remembered.once(name, request, lambda: method(request, role)),
            )

        async def read(request: Any, context: Any) -> Any:
            left = context.time_remaining()
            try:
                async with asyncio.timeout(READ_SECONDS if left is None else left):
                    return await method(request, role)
            except TimeoutError:
                raise TimedOut(
                    f"{name}: the daemon did not answer in time; killswitch status tells its health"
                ) from None

        async def call(request: Any, context: Any) -> Any:
            try:
                roles.authorize(role, name)
                return await (order(request) if name in roles.ORDERS else read(request, context))
            except Exception as error:
                return await _abort(context, name, error)

        return call

    def _get_evidence(self, role: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                roles.authorize(role, "GetEvidence")
                async for response in self._methods.GetEvidence(request):
                    yield response
            except Exception as error:
                await _abort(context, "GetEvidence", error)

        return call

    def _stream_events(self, role: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                roles.authorize(role, "StreamEvents")
                queue = Lagging(self._depth)
                feed = asyncio.create_task(self._feed(request, queue))
                try:
                    await asyncio.sleep(0)  # the feed has subscribed when its first step is done:
                    await context.send_initial_metadata(())  # from now on the caller misses nothing
                    async for item in queue:
                        yield convert.to_wire(item)
                finally:
                    feed.cancel()
            except Exception as error:
                await _abort(context, "StreamEvents", error)

        return call

    async def _feed(self, request: Any, queue: Lagging) -> None:
        """Takes items as fast as they come, however slow the reader is: the daemon never waits for it."""

        async def take() -> None:
            async for item in self._methods.events(request):
                queue.put(item)

        taking = asyncio.create_task(take())
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait((taking, closing), return_when=asyncio.FIRST_COMPLETED)
            queue.close(taking.exception() if taking.done() else None)
        finally:
            taking.cancel()
            closing.cancel()


async def _abort(context: Any, name: str, error: Exception) -> Any:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not status.is_ours(error):
        log.error("control: %s failed", name, exc_info=error)
    code, message, metadata = status.to_wire(error, name)
    await context.abort(code, message, metadata)
