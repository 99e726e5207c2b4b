"""Connects and says what it is told, in the pieces it is told; many times, one line of standard input each.

A line: ``HOST PORT PIECE,PIECE,…`` with each piece in hex. Answers with what came back within a moment, in hex, or "-".
"""

import socket
import sys

print("ready", flush=True)
for line in sys.stdin:
    host, port, pieces, *wait = line.split()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.settimeout(5)
        try:
            s.connect((host, int(port)))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces.split(","):
                s.send(bytes.fromhex(piece))
            s.settimeout(float(wait[0]) if wait else 0.05)
            heard = s.recv(65536)
        except OSError:
            heard = b""
        # Do not linger on what was never let through: a reset instead.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    print(heard.hex() or "-", flush=True)
