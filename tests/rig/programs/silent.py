"""A file system of one file that opens and is never answered for: FUSE, spoken by hand. ``silent.py DIRECTORY COMMAND…``

Mounts itself in a mount namespace of its own, so that nobody else is held up by it, and runs COMMAND there as often as ``TIMES``
(of the environment) says, each in the background. ``FILE`` in COMMAND is the path of the file. Ends with its input.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import threading

LOOKUP, GETATTR, OPEN, READ, FLUSH, RELEASE, INIT = 1, 3, 14, 15, 25, 18, 26
ENOENT, ENOSYS = 2, 38
ROOT, FILE = 1, 2
IN_HEADER, OUT_HEADER = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")


def attributes(node: int) -> bytes:
    mode, size = (0o40755, 0) if node == ROOT else (0o100755, 4096)
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(fd: int, unique: int, data: bytes = b"", error: int = 0) -> None:
    os.write(fd, OUT_HEADER.pack(OUT_HEADER.size + len(data), -error, unique) + data)


def serve(fd: int) -> None:
    while True:
        request = os.read(fd, 1 << 17)
        _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
        if opcode == INIT:
            answer(
                fd,
                unique,
                struct.pack("<IIIIHHIIHHIIII", 7, 31, 4096, 0, 8, 8, 4096, 1, 0, 0, 0, 0, 0, 0)[:64].ljust(64, b"\0"),
            )
        elif opcode == LOOKUP:
            if request[IN_HEADER.size :].startswith(b"file"):
                answer(fd, unique, struct.pack("<QQQQII", FILE, 0, 3600, 3600, 0, 0) + attributes(FILE))
            else:
                answer(fd, unique, error=ENOENT)
        elif opcode == GETATTR:
            answer(fd, unique, struct.pack("<QII", 3600, 0, 0) + attributes(node))
        elif opcode == OPEN:
            answer(fd, unique, struct.pack("<QII", 7, 0, 0))
        elif opcode != READ:  # nobody ever hears of a read
            answer(fd, unique, error=ENOSYS)


def main() -> None:
    directory, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x44000, None):  # CLONE_NEWNS; MS_REC | MS_PRIVATE
        raise OSError(ctypes.get_errno(), "no mount namespace of its own")
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"silent", directory.encode(), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "not mounted")
    threading.Thread(target=serve, args=(fd,), daemon=True).start()
    words = [word.replace("FILE", f"{directory}/file") for word in command]
    running = [subprocess.Popen(words, stdin=subprocess.DEVNULL) for _ in range(int(os.environ.get("TIMES", "1")))]
    print("ready", flush=True)
    sys.stdin.read()
    for process in running:
        process.kill()
        process.wait()
    os._exit(0)  # the mount goes with the last who could answer for it


main()
