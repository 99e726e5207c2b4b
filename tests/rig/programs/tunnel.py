"""The near end of a reverse tunnel, as small as they come: connects out, and hands on to a service inside.

    tunnel.py KIND HOST PORT INNER_PORT [tls] [eager]

KIND is one of ``framing.KINDS``, or ``work``: a control connection, and for each stream a connection of its own. ``eager``: the
service is connected to before anything comes in.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys
import threading

import framing


def outside(host: str, port: int, tls: bool) -> socket.socket:
    made = socket.create_connection((host, port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not tls:
        return made
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(made)


def inside(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def serve(
    outer: socket.socket, codec: framing.Plain | framing.Streams | framing.WebSocket, port: int, eager: bool
) -> None:
    streams: dict[int, socket.socket] = {}
    ready = selectors.DefaultSelector()
    ready.register(outer, selectors.EVENT_READ, None)
    if eager:
        streams[0] = inside(port)
        ready.register(streams[0], selectors.EVENT_READ, 0)
    while True:
        if not (isinstance(outer, ssl.SSLSocket) and outer.pending()):
            for key, _ in ready.select():
                if key.data is not None:
                    data = key.fileobj.recv(16384)  # type: ignore[union-attr]
                    if not data:
                        ready.unregister(key.fileobj)
                        streams.pop(key.data, None)
                    outer.sendall(codec.wrap(key.data, data))
                    break
            else:
                key = None  # type: ignore[assignment]
            if key is not None and key.data is not None:
                continue
        data = outer.recv(16384)
        if not data:
            return
        for stream, body in codec.unwrap(data):
            if stream not in streams:
                streams[stream] = inside(port)
                ready.register(streams[stream], selectors.EVENT_READ, stream)
            if body:
                streams[stream].sendall(body)


def work(host: str, port: int, tls: bool, inner_port: int) -> None:
    control = outside(host, port, tls)
    while control.recv(1):
        made = outside(host, port, tls)
        threading.Thread(target=serve, args=(made, framing.Plain(), inner_port, True), daemon=True).start()


def main() -> None:
    kind, host, port, inner_port, *options = sys.argv[1:]
    tls, eager = "tls" in options, "eager" in options
    if kind == "work":
        work(host, int(port), tls, int(inner_port))
    else:
        serve(outside(host, int(port), tls), framing.KINDS[kind](), int(inner_port), eager)


if __name__ == "__main__":
    main()
