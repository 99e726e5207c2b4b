"""A process with every kind of socket, made beforehand; told on stdin which to use, answers with what it saw.

Commands: ``use NAME`` sends on it; ``new`` tries to make sockets; ``hear NAME`` waits for something to come in,
``silent NAME`` for a moment in which nothing may.
"""

import select
import socket
import sys

far_tcp4, far_tcp6, far_udp4, far_udp6 = map(int, sys.argv[1:])
sockets = {
    "tcp4": socket.create_connection(("127.0.0.1", far_tcp4)),
    "tcp6": socket.create_connection(("::1", far_tcp6)),
    "udp4": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "icmp4": socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "icmp6": socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    "raw4": socket.socket(socket.AF_INET, socket.SOCK_RAW, 253),
    "raw6": socket.socket(socket.AF_INET6, socket.SOCK_RAW, 253),
}
sockets["udp4"].connect(("127.0.0.1", far_udp4))
sockets["udp6"].connect(("::1", far_udp6))
listener = socket.create_server(("127.0.0.1", 0))
ECHO4 = b"\x08\x00\xf7\xff\x00\x00\x00\x00"
ECHO6 = b"\x80\x00\x00\x00\x00\x00\x00\x00"
print(listener.getsockname()[1], flush=True)

for line in sys.stdin:
    command, _, name = line.strip().partition(" ")
    if command == "new":
        outcome = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
                try:
                    socket.socket(family, kind, 253 if kind == socket.SOCK_RAW else 0).close()
                    outcome.append("made")
                except PermissionError:
                    outcome.append("denied")
        print(" ".join(outcome), flush=True)
        continue
    s = sockets[name]
    if command == "use":
        target = {"icmp4": ("127.0.0.1", 0), "icmp6": ("::1", 0), "raw4": ("127.0.0.1", 0), "raw6": ("::1", 0)}.get(
            name
        )
        data = {"icmp4": ECHO4, "icmp6": ECHO6}.get(name, b"ping " + name.encode())
        try:
            s.sendto(data, target) if target else s.send(data)
            print("sent", flush=True)
        except OSError as e:
            print(f"refused {e.errno}", flush=True)
    elif command in ("hear", "silent"):
        came = bool(select.select([s], [], [], 10 if command == "hear" else 0.3)[0])
        print(f"heard {len(s.recv(4096))}" if came else "silence", flush=True)
