"""A mining pool of our own at the far side: it speaks Stratum v1, gives out one easy job, and counts what it was sent."""

from __future__ import annotations

import json
import socket
import threading

from tests.rig.netns import FarSide

JOB = {
    "id": None,
    "method": "mining.notify",
    "params": ["1", "00" * 32, "00" * 42, "00" * 42, [], "20000000", "1d00ffff", "65000000", True],
}


class Pool:
    def __init__(self, far: FarSide, port: int = 3333) -> None:
        self._listener = far.listen(port)
        self._listener.settimeout(0.1)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.logins = 0
        self.shares = 0
        self.bytes = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client = self._listener.accept()[0]
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(0.1)
        buffer = b""
        with client:
            while not self._stop.is_set():
                try:
                    data = client.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                self.bytes += len(data)
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    for answer in self._answer(line):
                        client.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes) -> list[object]:
        request = json.loads(line)
        match request.get("method"):
            case "mining.subscribe":
                return [{"id": request["id"], "result": [[["mining.notify", "1"]], "08000002", 4], "error": None}]
            case "mining.authorize":
                self.logins += 1
                return [{"id": request["id"], "result": True, "error": None}, JOB]
            case "mining.submit":
                self.shares += 1
                return [{"id": request["id"], "result": True, "error": None}]
        return [{"id": request.get("id"), "result": None, "error": [20, "unknown method", None]}]

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
