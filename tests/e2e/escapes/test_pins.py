"""The pinned programs and maps are out of sight, and no map can be had by its id."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import Inside

SCRIPT = """
pins = sys.argv[1]
attempt("list", lambda: os.listdir("/sys/fs/bpf") if os.listdir("/sys/fs/bpf") else os.listdir(pins))
attempt("list pins", lambda: os.listdir(pins))
attempt("remove pins", lambda: os.rmdir(pins))
def bpf(command, number):
    attribute = ctypes.create_string_buffer(struct.pack("=IIII", number, 0, 0, 0) + bytes(112))
    return call("syscall", 321, command, attribute, 128)
for name, command in (("next program", 11), ("next map", 12), ("program by id", 13), ("map by id", 14), ("link by id", 30)):
    attempt(name, lambda: bpf(command, 1))
def get(path):
    name = ctypes.create_string_buffer(path.encode())
    attribute = struct.pack("=QII", ctypes.addressof(name), 0, 0) + bytes(112)
    return call("syscall", 321, 7, ctypes.create_string_buffer(attribute), 128)
attempt("pinned object", lambda: get(f"{pins}/maps"))
"""


def test_pins(inside: Callable[..., Inside], user: str, shared_daemon: Daemon) -> None:
    def pins() -> list[str]:
        """But for those of network devices, which come and go with them."""
        return sorted(str(p) for p in shared_daemon.pin_dir.rglob("*") if "devices" not in p.parts)

    before = pins()
    tried = inside(SCRIPT, shared_daemon.pin_dir, user=user).results()
    assert {"EPERM", "EACCES", "ENOENT", "EROFS"} >= set(tried.values()), tried
    assert before
    assert pins() == before
