"""A proxy at FAR:3128, for HTTP's CONNECT and SOCKS 5. Whatever it is asked for, it goes where its arguments say."""

import asyncio
import os
import sys
from pathlib import Path

TO = sys.argv[1], int(sys.argv[2])


async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def serve(reader, writer):
    if await reader.readexactly(1) == b"\5":
        await reader.readexactly(2)
        writer.write(b"\5\0")
        await reader.readexactly(10)
        answer = b"\5\0\0\1\0\0\0\0\0\0"
    else:
        await reader.readuntil(b"\r\n\r\n")
        answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
    far_reader, far_writer = await asyncio.open_connection(*TO)
    writer.write(answer)
    await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer), return_exceptions=True)


async def main():
    server = await asyncio.start_server(serve, os.environ["FAR"], 3128)
    (Path(os.environ["WORK"]) / "far.ready").touch()
    await server.serve_forever()


asyncio.run(main())
