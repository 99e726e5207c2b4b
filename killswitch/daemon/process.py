"""The daemon's own process, set up for one thing: that an order is carried out at once, whatever else goes on."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import sys

from killswitch.errors import KernelError
from killswitch.kernel import scheduling

log = logging.getLogger("killswitch")

NICE = -10  # where the real-time class is refused; as the systemd unit has it
SLICE_NS = 500_000  # of a CPU, in one go: who asks for little gets it sooner
SWITCH_S = 0.0005  # after which a thread that wants the interpreter gets it; Python's own 5 ms are a quarter of a kill
MEND = "set LimitRTPRIO=2 in the unit, or start it with CAP_SYS_NICE"
ARENAS = 2  # of malloc; it makes eight a CPU, and what evidence and calls have once used of each stays resident
_M_ARENA_MAX = -8  # malloc.h


def prepare() -> None:
    """Before any thread is started: they inherit it."""
    _go_first()
    sys.setswitchinterval(SWITCH_S)
    with contextlib.suppress(AttributeError):  # glibc's own
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)


def armed() -> None:
    """What is there now stays: the collector looks at what comes later only, in microseconds where it took tens of
    milliseconds. What starting has left behind goes back to the kernel."""
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _go_first() -> None:
    try:
        if not scheduling.go_first(NICE, SLICE_NS):
            log.info("not in the real-time class: a busy host may delay a kill by some 10 ms; %s", MEND)
    except KernelError as e:
        log.warning("a busy host delays kills: %s; %s", e, MEND)
