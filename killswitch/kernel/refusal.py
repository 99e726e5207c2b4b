"""Why an object was not loaded, in one line: read from what libbpf says, which tells it in many, with errnos that mislead."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path

from killswitch.errors import KernelError, NotSupported

_PROGRAM = re.compile(r"prog '([^']+)': (.*)")
_NOT_ELF = range(4000, 4100)  # libbpf's own errors, LIBBPF_ERRNO__*
_FRAME = ("-- BEGIN", "-- END", "failed to load", "failed to prepare load attributes")
REBUILD = "build it anew: make bpf; or install the package anew"
CAPABILITIES = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or CAP_SYS_ADMIN"


def explain(obj: Path, code: int, said: Sequence[str]) -> KernelError:
    """The error for an object that libbpf could not open or load; ``code`` is its errno, ``said`` its latest lines.

    NotSupported where it is this kernel that lacks something.
    """
    lines = [line.strip().removeprefix("libbpf: ") for line in said]
    if code in _NOT_ELF or any("not a proper ELF" in line for line in lines):
        return KernelError(f"open the BPF object {obj}", errno.ENOEXEC, f"it is none; {REBUILD}")
    what = f"load the BPF object {obj}"
    if any("valid kernel BTF" in line or "vmlinux BTF" in line for line in lines):
        hint = "the kernel tells no types of its own (/sys/kernel/btf/vmlinux): boot one with CONFIG_DEBUG_INFO_BTF=y"
        return NotSupported(what, errno.EOPNOTSUPP, hint)
    if any("Couldn't load trivial BPF program" in line for line in lines):
        if code == errno.EPERM:
            return KernelError(what, code, f"this process may not load any: it needs {CAPABILITIES}")
        return NotSupported(what, code, "the kernel loads none at all: boot one with CONFIG_BPF_SYSCALL=y")
    told = [(found[1], found[2]) for line in lines if (found := _PROGRAM.match(line))]
    failed = next((name for name, text in told if text.startswith("failed to load")), told[-1][0] if told else "")
    if not failed:
        return KernelError(what, code, "; ".join(lines[-5:]) or REBUILD)
    what = f"load the BPF program {failed} of {obj}"
    if reason := _verifier(lines, failed):
        return KernelError(what, code, f"the verifier says: {reason}")
    reasons = [text for name, text in told if name == failed and not text.startswith(_FRAME)]
    if code in (errno.EPERM, errno.ESRCH, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
        return NotSupported(what, errno.EOPNOTSUPP, f"this kernel refuses it: {reasons[-1] if reasons else code}")
    return KernelError(what, code, "; ".join(reasons))


def _verifier(lines: Sequence[str], program: str) -> str:
    """The verifier's last word on the program before its statistics: what it did not like. "" when it said nothing."""
    begin, end = f"prog '{program}': -- BEGIN PROG LOAD LOG --", "-- END PROG LOAD LOG --"
    if end not in lines:
        return ""
    last = len(lines) - 1 - lines[::-1].index(end)
    first = lines.index(begin) + 1 if begin in lines else 0  # a long log has pushed its beginning out
    words = [
        line for line in lines[first:last] if line and not re.match(r"processed \d+ insns|peak_states|max_states", line)
    ]
    return words[-1] if words else ""
