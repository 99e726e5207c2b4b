"""The services of a site's far side, and of the host beside the workload: one asyncio process each, told what to do on stdin.

``world``: a name server, pools (TCP, TLS, UDP; HTTP for solo mining), an intruder who waits for shells and relays, web
servers, an intranet, the metadata service. ``host``: what listens on the workload's own loopback and is none of its business.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from benchmarks.eval import intruder
from benchmarks.eval.capture import Seen, drain, drops, open_capture
from benchmarks.eval.nameserver import answer
from benchmarks.eval.pool import Pool
from benchmarks.eval.site import GATEWAY4, GATEWAY6, PLACES, PLACES6, SERVICES

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECRET = b"ks-secret: what only the inside may read\n"


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(directory / "ca.pem", directory / "key.pem")
        self.servers: list[asyncio.Server] = []
        self.names: dict[str, str] = {}
        self.idle_ports: set[int] = set()  # that listened before any case
        self.forget({})

    def forget(self, names: dict[str, str]) -> None:
        self.names = {f"{s}.example": a for s, a in SERVICES.items()} | {"git.example": PLACES["SSH"]} | names
        self.pool, self.intruder = Pool(), intruder.Intruder()
        self.seen = Seen()
        self.questions: list[str] = []
        self.listened: set[int] = set()

    # --- services ---------------------------------------------------------------------------------------------------

    async def listen(self, handler: Handler, address: str, *ports: int, tls: bool = False) -> None:
        for port in ports:
            server = await asyncio.start_server(
                partial(self._guard, handler), address, port, ssl=self.tls if tls else None, limit=1 << 20
            )
            self.servers.append(server)

    async def _guard(self, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client that is cut off in the middle of a word is what this is all about: no error."""
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ValueError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def build(self) -> None:
        for pool in (PLACES["POOL"], PLACES6["POOL6"]):
            await self.listen(lambda r, w: self.pool.serve(r, w), pool, 22, 53, 80, 443, 3333, 5555, 8080, 14444)
        await self.listen(lambda r, w: self.pool.serve(r, w), PLACES["TLSPOOL"], 443, 3333, 14443, tls=True)
        for place in (PLACES["INTRUDER"], PLACES6["INTRUDER6"]):
            for port, (serve, tls) in intruder.PORTS.items():
                await self.listen(partial(serve, lambda: self.intruder), place, port, tls=tls)
        for web in (PLACES["WEB"], PLACES6["WEB6"]):
            await self.listen(self.web, web, 80)
            await self.listen(self.web, web, 443, tls=True)
        await self.listen(self.intranet, PLACES["INTRANET"], 80, 8080)
        await self.listen(self.intranet, PLACES["METADATA"], 80)
        await self.listen(self.echo, PLACES["SERVER"], 5432, 6379)
        for gateway in (GATEWAY4, GATEWAY6):
            await self.listen(self.dns_tcp, gateway, 53)
        loop = asyncio.get_running_loop()
        for make, address, port in (
            (lambda: Datagrams(self.dns), GATEWAY4, 53),
            (lambda: Datagrams(self.dns), GATEWAY6, 53),
            (lambda: Datagrams(lambda data: self.pool.datagram(data)), PLACES["POOL"], 3333),
        ):
            await loop.create_datagram_endpoint(make, local_addr=(address, port))
        capture = open_capture("eth0")
        self.capture = capture
        loop.add_reader(capture, lambda: drain(capture, self.seen))
        self.idle_ports = listening()

    def dns(self, question: bytes) -> bytes:
        name, reply = answer(question, self.names, otherwise=PLACES["WEB"])
        self.questions.append(name)
        return reply

    async def dns_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = int.from_bytes(await reader.readexactly(2))
            reply = self.dns(await reader.readexactly(size))
            writer.write(len(reply).to_bytes(2) + reply)
            await writer.drain()

    async def web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """GET and HEAD give files of the web directory, and 404 otherwise; POST and PUT are taken in and answered."""
        while True:
            method, path, headers = await intruder.read_request(reader)
            length = int(headers.get("content-length", 0))
            if headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            while length > 0:
                length -= len(await reader.readexactly(min(length, 1 << 20)))
            file = (self.directory / "web" / path.split("?")[0].lstrip("/")).resolve()
            if file.is_dir():
                listing = "".join(
                    f'<a href="{f.name}{"/" * f.is_dir()}">{f.name}</a><br>\n' for f in sorted(file.iterdir())
                )
                status, body = HTTPStatus.OK, f"<html><body>\n{listing}</body></html>\n".encode()
            elif file.is_file():
                status, body = HTTPStatus.OK, file.read_bytes()
            elif method in ("POST", "PUT"):
                status, body = HTTPStatus.OK, b'{"ok": true}\n'
            else:
                status, body = HTTPStatus.NOT_FOUND, b"not found\n"
            kind = {".html": "text/html", ".json": "application/json"}.get(file.suffix, "application/octet-stream")
            kind = "text/html" if file.is_dir() else kind
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + (b"" if method == "HEAD" else body))
            await writer.drain()
            if headers.get("connection", "").lower() == "close":
                return

    async def intranet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _method, path, headers = await intruder.read_request(reader)
            body = SECRET * (20 if path == "/fixed" else random.randint(1, 60))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            if headers.get("connection", "").lower() != "keep-alive":
                return

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    # --- what the harness asks --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Which ports have come to listen over here, which is what a reverse tunnel brings."""
        self.listened |= listening() - self.idle_ports

    def report(self) -> dict[str, Any]:
        drain(self.capture, self.seen, 1 << 20)
        self.look()
        return {
            "flows": [
                [*where, t.bytes, t.packets, t.first_unix_ns, t.last_unix_ns] for where, t in self.seen.tallies.items()
            ],
            "lost": drops(self.capture),
            "questions": self.questions[:200],
            "listened": sorted(self.listened),
            "logins": self.pool.logins,
            "shares": self.pool.shares,
            "shells": self.intruder.shells,
            "relayed": self.intruder.relayed,
            "received": self.intruder.received,
        }

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order["do"]:
            case "reset":
                drain(self.capture, self.seen, 1 << 20)
                self.forget(order["names"])
            case "report":
                return self.report()
            case "await":
                while order["port"] not in listening_at(PLACES["SSH"]):
                    await asyncio.sleep(0.02)
                self.idle_ports = listening()
        return {"ok": True}


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        self._reply = reply

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        try:
            reply = self._reply(data)
        except ValueError:  # somebody's own idea of a protocol
            return
        self._transport.sendto(reply, address)


def _listeners() -> list[tuple[str, int]]:
    """(address as in /proc/net/tcp, port) of every listening TCP socket of this namespace."""
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                found.append((address, int(port, 16)))
    return found


def listening() -> set[int]:
    return {port for _, port in _listeners()}


def listening_at(address: str) -> set[int]:
    raw = bytes(int(p) for p in reversed(address.split("."))).hex().upper()
    return {port for where, port in _listeners() if where == raw}


async def main(role: str, directory: Path) -> None:
    world = World(directory)
    if role == "world":
        await world.build()
    else:
        await world.listen(world.intranet, "127.0.0.1", 8000)
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)

    async def keep_looking() -> None:
        while role == "world":
            world.look()
            await asyncio.sleep(0.2)

    looking = asyncio.create_task(keep_looking())
    while line := await orders.readline():
        print(json.dumps(await world.obey(json.loads(line))), flush=True)
    looking.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
