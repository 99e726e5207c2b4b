"""The resource limits of this process. Any process of the same user may lower them from outside (prlimit(2) asks for no
capability then), and a daemon that may open three files freezes nothing: what has changed is put back."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.kernel import syscalls

_NAMES = {getattr(resource, n): n for n in dir(resource) if n.startswith("RLIMIT_") and n != "RLIMIT_OFILE"}
_OOM = Path("/proc/self/oom_score_adj")


class OwnLimits:
    """As they are when this is made. Raises KernelError where they cannot be read."""

    def __init__(self) -> None:
        self._limits = {number: resource.getrlimit(number) for number in _NAMES}
        try:
            self._oom = int(_OOM.read_text())
        except OSError as e:
            raise syscalls.error(f"read {_OOM}", e) from e

    def put_back(self) -> list[str]:
        """What somebody had made worse, each as it was found and is again. Microseconds, and opens no file before those it may.

        Raises KernelError when one cannot be put back: raising a hard limit, and being spared again where memory runs out, take
        CAP_SYS_RESOURCE.
        """
        changed: list[str] = []
        for number, limits in self._limits.items():
            now = resource.getrlimit(number)
            if not any(map(_less, now, limits)):
                continue  # more than it had is an operator's doing
            try:
                resource.setrlimit(number, limits)
            except (OSError, ValueError) as e:
                raise self._refused(f"{_NAMES[number]} from {_say(now)} to {_say(limits)}", e) from e
            changed.append(f"{_NAMES[number]} {_say(now)} (was {_say(limits)})")
        try:
            if (oom := int(_OOM.read_text())) > self._oom:
                _OOM.write_text(str(self._oom))
                changed.append(f"oom_score_adj {oom} (was {self._oom})")
        except OSError as e:
            raise self._refused(f"oom_score_adj to {self._oom}", e) from e
        return changed

    def _refused(self, what: str, cause: OSError | ValueError) -> KernelError:
        code = cause if isinstance(cause, OSError) else errno.EPERM  # of which Python makes a ValueError
        return syscalls.error(f"put back {what}", code, "start the daemon with CAP_SYS_RESOURCE, as its unit does")


def _less(now: int, before: int) -> bool:
    return now != resource.RLIM_INFINITY and (before == resource.RLIM_INFINITY or now < before)


def _say(limits: tuple[int, int]) -> str:
    return "/".join("unlimited" if n == resource.RLIM_INFINITY else str(n) for n in limits)
