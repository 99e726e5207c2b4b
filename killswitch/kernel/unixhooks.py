"""Programs on a cgroup that are asked about its unix sockets: optional, for it takes Linux 6.7; and needed only where there is no
BPF LSM, which tells a peer inside the workload from one outside. This cannot: severed, it connects to none."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Mapping

from killswitch.errors import KernelError, NotSupported
from killswitch.kernel import attach, bpfcall, lsm

_SOCK_ADDR = 18  # program type
TYPES: Mapping[str, tuple[int, int]] = {name: (_SOCK_ADDR, at) for name, at in attach.UNIX.items()}


@functools.cache
def refusal() -> str:
    """Why this kernel runs without them, in one line; "" = it runs them."""
    if not lsm.refusal():
        return "the BPF LSM of this kernel does more: see lsm_unix_sockets"
    try:
        for at in attach.UNIX.values():
            os.close(bpfcall.load(_SOCK_ADDR, bpfcall.allow(1), expected=at))
    except KernelError as e:
        return f"this kernel asks no program about unix sockets (Linux 6.7): {' '.join(str(e).split())}"
    return ""


def is_left_out(program: str) -> bool:
    """Whether this program of the object file is one of these, and not for this kernel."""
    return program in attach.UNIX and bool(refusal())


def trial() -> str:
    """For ``doctor``. Raises NotSupported."""
    if why := refusal():
        raise NotSupported("refuse unix connections", errno.EOPNOTSUPP, why)
    return "severed, it makes no new unix connection and sends no datagram to a unix address, inside or outside"
