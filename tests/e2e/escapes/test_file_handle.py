"""open_by_handle_at opens a file by its number, around every mount: it takes CAP_DAC_READ_SEARCH."""

from __future__ import annotations

from collections.abc import Callable

from killswitch.kernel import cgroupfs
from tests.e2e.escapes.conftest import Inside

SCRIPT = """
import platform
NAME, OPEN = (303, 304) if platform.machine() == "x86_64" else (264, 265)
def reopen(path):
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    call("syscall", NAME, -100, path.encode(), handle, ctypes.byref(mount), 0)
    say("named", True)
    at = os.open(path, os.O_RDONLY)
    call("syscall", OPEN, at, handle, os.O_RDONLY)
for path in (sys.argv[1], "/etc"):
    attempt(path, lambda: reopen(path))
become_root_of_a_user_namespace(NEWNS)
for path in (sys.argv[1], "/etc"):
    attempt("in a user namespace " + path, lambda: reopen(path))
"""


def test_file_handle(inside: Callable[..., Inside], user: str) -> None:
    tried = inside(SCRIPT, cgroupfs.find_mount(), user=user).results()
    assert tried.pop("named")
    assert set(tried.values()) == {"EPERM"}, tried
