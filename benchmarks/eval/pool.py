"""A pool that every dialect of Stratum can log in to. There is no chain behind it, no difficulty and no reward."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

NOTIFY = {
    "id": None,
    "method": "mining.notify",
    "params": ["1", "00" * 32, "00" * 42, "00" * 42, [], "20000000", "1d00ffff", "65000000", True],
}
JOB = {"blob": "07" * 76, "job_id": "1", "target": "ffff0000", "height": 1, "seed_hash": "ab" * 32, "algo": "rx/0"}


class Pool:
    def __init__(self) -> None:
        self.logins = 0
        self.shares = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readline()
        if first[:5] in (b"POST ", b"GET /"):
            return await self._http(first, reader, writer)
        line = first
        while line:
            writer.write(self.datagram(line))
            await writer.drain()
            line = await reader.readline()

    def datagram(self, data: bytes) -> bytes:
        """Answer each line; raises ValueError where one is no JSON object."""
        answers = [a for line in data.splitlines() if line.strip() for a in self.answer(json.loads(line))]
        return b"".join(json.dumps(a).encode() + b"\n" for a in answers)

    def answer(self, request: Any) -> list[object]:
        if not isinstance(request, dict):
            raise ValueError("a request is an object")
        reply = {"id": request.get("id"), "jsonrpc": "2.0", "error": None}
        match request.get("method"):
            case "mining.subscribe":
                return [{**reply, "result": [[["mining.notify", "1"]], "08000002", 4]}]
            case "mining.authorize":
                self.logins += 1
                return [{**reply, "result": True}, NOTIFY]
            case "login":
                self.logins += 1
                return [{**reply, "result": {"id": "1", "job": JOB, "status": "OK"}}]
            case "eth_submitLogin":
                self.logins += 1
                return [{**reply, "result": True}]
            case "mining.submit" | "submit" | "eth_submitWork" | "submitblock":
                self.shares += 1
                return [{**reply, "result": {"status": "OK"}}]
            case "getblocktemplate" | "get_block_template":
                self.logins += 1
                return [{**reply, "result": {"blocktemplate_blob": "07" * 76, "seed_hash": "ab" * 32, "height": 1}}]
            case "getjob" | "eth_getWork":
                return [{**reply, "result": JOB}]
        return [{**reply, "result": {"status": "KEEPALIVED"}}]

    async def _http(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Solo mining against a node's JSON-RPC; or, asked to upgrade, Stratum in a WebSocket as pages mine."""
        length, key = 0, b""
        while (line := await reader.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            elif name.lower() == b"sec-websocket-key":
                key = value.strip()
        if key:
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
            writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            while True:
                body = self.datagram(await read_frame(reader))
                writer.write(
                    b"\x81" + (bytes([len(body)]) if len(body) < 126 else b"\x7e" + len(body).to_bytes(2)) + body
                )
        body = self.datagram(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The payload of one masked WebSocket frame of a client."""
    head = await reader.readexactly(2)
    size = head[1] & 127
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2))
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8))
    mask = await reader.readexactly(4) if head[1] & 128 else bytes(4)
    body = await reader.readexactly(size)
    return bytes(b ^ mask[i % 4] for i, b in enumerate(body))
