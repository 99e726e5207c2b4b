"""A name server's answers: a name it was told of, and one address for every other. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import ip_address

A, TXT, AAAA = 1, 16, 28


def answer(question: bytes, names: Mapping[str, str], *, otherwise: str) -> tuple[str, bytes]:
    """(name asked for, the reply). Names in ``*.`` match what ends so. Raises ValueError for what is no question."""
    if len(question) < 17 or question[4:6] != b"\0\1":
        raise ValueError("not a DNS message with one question")
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1").lower())
        at += 1 + question[at]
        if at >= len(question) - 4:
            raise ValueError("the name does not end")
    name = ".".join(labels)
    kind = int.from_bytes(question[at + 1 : at + 3])
    suffixes = (f"*.{'.'.join(labels[i:])}" for i in range(1, len(labels)))
    address = next((names[n] for n in (name, *suffixes) if n in names), otherwise)
    data = b""
    if kind == (A if "." in address else AAAA):
        data = ip_address(address).packed
    elif kind == TXT:
        data = b"\x0bks-answered"
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data if data else b""
    header = question[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, 1 if data else 0, 0, 0)
    return name, header + question[12 : at + 5] + record
