"""Sends datagrams as it is told, one line of standard input each: ``sendto|connected HOST PORT PAYLOAD,PAYLOAD,…`` in hex.

Each line has a socket of its own. Answers with a word for each datagram: ``sent``, or the error's name.
"""

import errno
import socket
import sys

print("ready", flush=True)
for line in sys.stdin:
    how, host, port, payloads = line.split()
    said = []
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
        if how == "connected":
            s.connect((host, int(port)))
        for payload in payloads.split(","):
            raw = bytes.fromhex(payload)
            try:
                if how == "connected":
                    s.send(raw)
                else:
                    s.sendto(raw, (host, int(port)))
                said.append("sent")
            except OSError as error:
                said.append(errno.errorcode[error.errno])
    print(*said, flush=True)
