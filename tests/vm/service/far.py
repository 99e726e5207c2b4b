"""The far side of the machine: a network namespace at the end of a veth pair; writes down every packet that comes there.

Runs as a service that is up before anything that could send: ``python -m tests.vm.service.far``.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from killswitch.daemon.notify import notify
from tests.rig.farside import ETH_P_ALL, PACKET_OUTGOING, SO_TIMESTAMPNS, parse
from tests.rig.netns import inside, ip

NAMESPACE, NEAR, FAR = "ks-test-far", "ksn0", "ksf0"
NEAR4, FAR4 = "198.18.0.1", "198.18.0.2"
LOG = "/run/ks-test-far"  # a line a packet: unix time in ns, destination port


def build() -> None:
    ip("netns", "add", NAMESPACE)
    ip("link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", NAMESPACE)
    for where, device, address in (((), NEAR, NEAR4), (("-n", NAMESPACE), FAR, FAR4)):
        ip(*where, "address", "add", f"{address}/24", "dev", device)
        ip(*where, "link", "set", device, "up")


def main() -> None:
    build()
    seen = inside(NAMESPACE, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
    seen.bind((FAR, ETH_P_ALL))
    seen.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    with Path(LOG).open("w", buffering=1) as log:
        notify("READY=1")
        while True:
            frame, ancillary, _flags, address = seen.recvmsg(96, 64)
            if address[2] == PACKET_OUTGOING:
                continue
            seconds, nanoseconds = struct.unpack("qq", next(a[2] for a in ancillary if a[1] == SO_TIMESTAMPNS))
            at = seconds * 10**9 + nanoseconds
            packet = parse(frame, at)
            if packet and not packet.reset:
                log.write(f"{at} {packet.destination_port}\n")


if __name__ == "__main__":
    main()
