"""Stratum in a WebSocket, as pages mine. It mines nothing."""

import base64
import hashlib
import json
import os
import socket
import time

s = socket.create_connection((os.environ["POOL"], 8080))
s.sendall(
    b"GET /proxy HTTP/1.1\r\nHost: pool.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % base64.b64encode(os.urandom(16))
)
s.recv(4096)


def send(what):
    body, mask = json.dumps(what).encode(), os.urandom(4)
    head = bytes([0x81, 128 | len(body)]) if len(body) < 126 else b"\x81\xfe" + len(body).to_bytes(2, "big")
    s.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(body)))


send({"id": 1, "method": "login", "params": {"login": "48x", "pass": "x", "agent": "web/1"}})
end = time.time() + 280
while time.time() < end:
    for n in range(200000):
        hashlib.sha3_256(b"%d" % n).digest()
    send({"id": 2, "method": "submit", "params": {"job_id": "1", "nonce": "1", "result": "0"}})
