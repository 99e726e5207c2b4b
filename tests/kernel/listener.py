"""The other end of connections, on the far side of a veth pair."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

from tests.rig.netns import FarSide


class Listener:
    """Over there: keeps what each connection said, in the order they came, and says ``greeting`` first."""

    def __init__(self, far: FarSide, family: int = socket.AF_INET, greeting: bytes = b"", answer: bytes = b"") -> None:
        self._listener = far.listen(family=family)
        self.host, self.port = self._listener.getsockname()[:2]
        self.heard: list[bytearray] = []
        self._greeting, self._answer = greeting, answer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        open_: dict[socket.socket, bytearray] = {}
        end = float("inf")
        while time.monotonic() < end:
            waiting = select.select([self._listener, *open_], [], [], 0.02)[0]
            if self._stop.is_set():  # what has come by then is still heard, however late this thread gets a CPU
                end = min(end, time.monotonic() + 5)
                if not waiting:
                    break
            for ready in waiting:
                if ready is self._listener:
                    made = ready.accept()[0]
                    self.heard.append(bytearray())
                    open_[made] = self.heard[-1]
                    with contextlib.suppress(OSError):  # it may have gone again
                        made.sendall(self._greeting)
                    continue
                try:
                    data = ready.recv(65536)
                    if data and self._answer:
                        ready.sendall(self._answer)
                except OSError:
                    data = b""
                open_[ready] += data
                if not data:
                    open_.pop(ready)
                    ready.close()
        for made in (self._listener, *open_):
            made.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
