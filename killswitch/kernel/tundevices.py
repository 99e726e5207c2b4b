"""Devices into which a program writes frames (tun, tap): they come in from there, and no socket of the internet's families sent
them."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCETHTOOL, _GET_DRIVER = 0x8946, 3
_ANSWER_BYTES, _DRIVER_AT, _DRIVER_BYTES = 196, 4, 32  # struct ethtool_drvinfo


def is_one(name: str) -> bool:
    """Whether the device of that name, in the calling thread's network namespace, is such a one. False when it is gone."""
    answer = array.array("B", bytes(_ANSWER_BYTES))
    struct.pack_into("=I", answer, 0, _GET_DRIVER)
    asked = struct.pack("@16sP16x", name.encode(), answer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        try:
            fcntl.ioctl(s, _SIOCETHTOOL, asked)
        except OSError:
            return False  # gone, or a device of which no driver tells: then it is none of these
    return answer.tobytes()[_DRIVER_AT : _DRIVER_AT + _DRIVER_BYTES].rstrip(b"\0") == b"tun"
