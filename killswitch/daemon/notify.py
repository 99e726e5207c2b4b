"""systemd's notify socket: ``READY=1``, ``WATCHDOG=1`` and friends. Without ``NOTIFY_SOCKET`` nothing is sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send ``NAME=value`` lines in one datagram. True when the manager took it; never raises, never blocks for long."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return False
    if address[0] == "@":  # abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.settimeout(0.2)
            s.connect(address)
            s.sendall("\n".join(lines).encode("utf-8", "replace"))
    except OSError:
        return False
    return True


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """How long the manager waits for ``WATCHDOG=1`` before it kills us; None when it does not wait, or not for us."""
    try:
        limit = int(environ["WATCHDOG_USEC"]) / 1e6
        if "WATCHDOG_PID" in environ and int(environ["WATCHDOG_PID"]) != os.getpid():
            return None
    except (KeyError, ValueError):
        return None
    return limit if limit > 0 else None
