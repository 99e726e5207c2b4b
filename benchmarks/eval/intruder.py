"""The other end of a reverse shell or a relay: gives commands, asks for what is inside, counts what comes back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
from collections.abc import Awaitable, Callable

from benchmarks.eval.pool import read_frame

ROUNDS = 12  # an intruder is patient
PAUSE = 0.8
SECRET = b"ks-secret"


def request(*, keep: bool = True) -> bytes:
    """For something inside. Like a person's, no two are of one length."""
    about = os.urandom(random.randint(2, 60)).hex()
    connection = "keep-alive" if keep else "close"
    return f"GET /payroll?about={about} HTTP/1.1\r\nHost: intranet\r\nConnection: {connection}\r\n\r\n".encode()


COMMAND = b"id; uname -sr; echo ks-shell-$((6*7))\n"


class Intruder:
    def __init__(self) -> None:
        self.shells = 0  # commands that a shell has carried out
        self.relayed = 0  # requests that the inside has answered
        self.received = 0  # bytes of either


Current = Callable[[], Intruder]
Serve = Callable[[Current, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def shell(current: Current, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(ROUNDS):
        writer.write(COMMAND)
        await writer.drain()
        if await _heard(current(), reader, b"ks-shell-42"):
            current().shells += 1


async def relay(current: Current, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks to what the relay reaches as if it were here: request and answer, turn for turn."""
    for _ in range(ROUNDS):
        writer.write(request())
        await writer.drain()
        if await _heard(current(), reader, SECRET):
            current().relayed += 1


async def relay_once(current: Current, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The same with one request a connection, so that none of them carries a conversation."""
    writer.write(request(keep=False))
    await writer.drain()
    if await _heard(current(), reader, SECRET):
        current().relayed += 1


async def relay_same(current: Current, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The same request, with the same answer, one a connection: nothing that could be told apart is handed on."""
    writer.write(b"GET /fixed HTTP/1.1\r\nHost: intranet\r\n\r\n")
    await writer.drain()
    if await _heard(current(), reader, SECRET):
        current().relayed += 1


async def socks(current: Current, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A SOCKS client over the connection that the far end has made: asks for 127.0.0.1:8000 by a reverse proxy."""
    writer.write(b"\x05\x01\x00")
    await reader.readexactly(2)
    writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x1f\x40")
    await reader.readexactly(10)
    await relay(current, reader, writer)


async def websocket(current: Current, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _method, _path, headers = await read_request(reader)
    accept = base64.b64encode(
        hashlib.sha1(headers.get("sec-websocket-key", "").encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    )
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    for _ in range(ROUNDS):
        wanted = request(keep=False)
        writer.write(
            b"\x82" + (bytes([len(wanted)]) if len(wanted) < 126 else b"\x7e" + len(wanted).to_bytes(2)) + wanted
        )
        await writer.drain()
        body = await asyncio.wait_for(read_frame(reader), 30)
        current().received += len(body)
        if SECRET in body:
            current().relayed += 1
        await asyncio.sleep(PAUSE)


async def polled(current: Current, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP polling: GET fetches the next command, POST brings what came of it."""
    method, _path, headers = await read_request(reader)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    current().received += len(body)
    if b"ks-shell-42" in body:
        current().shells += 1
    if SECRET in body:
        current().relayed += 1
    answer = COMMAND if method == "GET" else b"ok\n"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(answer), answer))
    await writer.drain()


async def sink(current: Current, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        current().received += len(data)


async def _heard(intruder: Intruder, reader: asyncio.StreamReader, wanted: bytes) -> bool:
    """Whether it comes within the pause. Raises IncompleteReadError when the other side has gone."""
    heard = b""
    end = asyncio.get_running_loop().time() + PAUSE
    while (left := end - asyncio.get_running_loop().time()) > 0:
        try:
            data = await asyncio.wait_for(reader.read(65536), left)
        except TimeoutError:
            break
        if not data:
            if wanted in heard:
                return True
            raise asyncio.IncompleteReadError(heard, None)
        intruder.received += len(data)
        heard += data
    return wanted in heard


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]]:
    """(method, path, headers with small names). Raises IncompleteReadError at the end, ValueError for what is no HTTP."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _version = lines[0].split(" ")
    headers = (line.partition(":") for line in lines[1:] if line)
    return method, path, {name.lower(): value.strip() for name, _, value in headers}


# port at INTRUDER -> (what he does there, in TLS?)
PORTS: dict[int, tuple[Serve, bool]] = {
    53: (shell, False),
    80: (polled, False),
    443: (shell, False),
    1080: (socks, False),
    4444: (shell, False),
    8443: (shell, True),
    8765: (websocket, False),
    9000: (sink, False),
    9001: (relay, False),
    9002: (relay, True),
    9003: (relay_once, False),
    9004: (relay_same, False),
}
