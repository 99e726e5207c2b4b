from __future__ import annotations

import os
import socket
from pathlib import Path

from killswitch.daemon.notify import notify, watchdog_seconds


def listener(address: str) -> socket.socket:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(address)
    s.setblocking(False)
    return s


def test_lines_arrive_in_one_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "n")
    with listener(path) as s:
        assert notify("READY=1", "STATUS=armed, 3 workloads", environ={"NOTIFY_SOCKET": path})
        assert s.recv(4096) == b"READY=1\nSTATUS=armed, 3 workloads"


def test_abstract_address() -> None:
    name = f"ks-test-{os.getpid()}-notify"
    with listener("\0" + name) as s:
        assert notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": "@" + name})
        assert s.recv(4096) == b"WATCHDOG=1"


def test_no_manager_is_not_an_error(tmp_path: Path) -> None:
    assert not notify("READY=1", environ={})
    assert not notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert not notify("READY=1", environ={"NOTIFY_SOCKET": "vsock:2:1"})


def test_watchdog_is_ours_only() -> None:
    assert watchdog_seconds({}) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "10000000"}) == 10.0
    assert watchdog_seconds({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}) == 10.0
    assert watchdog_seconds({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "soon"}) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "0"}) is None
