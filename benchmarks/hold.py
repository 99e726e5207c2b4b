"""The hold: how soon after its exec a program is judged, and what innocent programs notice of it."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import scene
from benchmarks.harness import Row, Variant, in_turns, percentile, ratio
from killswitch.config import SHIPPED_POLICIES
from killswitch.control.service import Holding
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.netns import FarSide

ROUNDS, TIMES = 7, 60
JUDGED_P50_MS, JUDGED_P99_MS = 1.0, 10.0
HTTP, GIT, SINK = 8080, 9418, 7000
SERVER = """
import socket, threading
def serve(port, answer):
    s = socket.create_server(("", port), backlog=128)
    while True:
        c, _ = s.accept()
        while c.recv(4096) and answer:
            c.sendall(answer)
            break
        c.close()
threading.Thread(target=serve, args=(7000, b"")).start()
serve(8080, b"HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
"""


@dataclass(frozen=True, slots=True)
class Far:
    """Servers at the other end of a veth pair, and a directory for clones."""

    address: str
    directory: Path


@contextmanager
def far_side() -> Iterator[Far]:
    with ExitStack() as stack:
        far = stack.enter_context(FarSide(scene.LABEL))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=scene.LABEL)))
        repository = directory / "repository"
        subprocess.run(["git", "init", "-q", repository], check=True)
        (repository / "file").write_text("innocent\n" * 1000)
        who = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
        subprocess.run(["git", "-C", repository, "add", "file"], check=True)
        subprocess.run(["git", "-C", repository, *who, "commit", "-q", "-m", "file"], check=True)
        for command in (
            ("python3", "-c", SERVER),
            ("git", "daemon", f"--base-path={directory}", "--export-all", "--reuseaddr", f"--port={GIT}"),
        ):
            server = far.run(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.kill)
        # ``git daemon`` leaves a child behind that serves: all of the namespace is ended, and nothing else.
        stack.callback(_end_all, far.name)
        _until_they_serve(far.far4)
        yield Far(far.far4, directory)


def _end_all(namespace: str) -> None:
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        subprocess.run(["kill", "-KILL", pid], check=False, capture_output=True)


def _until_they_serve(address: str) -> None:
    for port in (HTTP, GIT, SINK):
        for _ in range(200):
            done = subprocess.run([program("first"), "tcp", address, str(port)], check=False, timeout=10)
            if done.returncode in (0, 5):  # 5: it was closed before all was read
                break
            time.sleep(0.02)


@contextmanager
def holding(word: str) -> Iterator[Path]:
    """The shipped policies with this word for ``hold``."""
    policies = {}
    for file in SHIPPED_POLICIES.glob("*.yaml"):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("hold:")]
        at = next(n for n, line in enumerate(lines) if line.startswith("mode:"))
        policies[file.name] = "\n".join([*lines[: at + 1], f"hold: {word}", *lines[at + 1 :]]) + "\n"
    with Daemon(scene.LABEL, policies=policies) as daemon:
        yield scene.make_workload(daemon, "measured")
        if word != "off":
            SEEN[word] = daemon.client.status().holding


SEEN: dict[str, Holding] = {}  # what the daemon itself told, by word, at the end of the last round


def run_times(cgroup: Path | None, *, times: int, command: Callable[[], list[str]]) -> float:
    """Nanoseconds of the median run. Raises CalledProcessError: an innocent program must not fail."""
    enter = scene.entering(cgroup) if cgroup is not None else None
    took = []
    for number in range(times + 1):
        argv = command()
        began = time.monotonic_ns()
        subprocess.run(argv, preexec_fn=enter, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if number:  # the first reads its files from the disk, and is read itself
            took.append(time.monotonic_ns() - began)
    SLOWEST.append(percentile(took, 0.99))
    return statistics.median(took)


SLOWEST: list[float] = []


def rows(quick: bool) -> Iterator[Row]:
    rounds, times = (2, 20) if quick else (ROUNDS, TIMES)
    with far_side() as far:
        numbers = iter(range(1 << 30))

        def clone() -> list[str]:
            target = far.directory / f"clone{next(numbers)}"
            shutil.rmtree(target, ignore_errors=True)
            return ["git", "clone", "-q", f"git://{far.address}/repository", str(target)]

        programs: dict[str, Callable[[], list[str]]] = {
            "a static client, at once": lambda: [str(program("first")), "tcp", far.address, str(SINK)],
            "curl": lambda: ["curl", "-sf", f"http://{far.address}:{HTTP}/"],
            "git clone": clone,
        }
        variants = [Variant("nothing", scene.plain_cgroup), *(Variant(w, _of(w)) for w in ("off", "matched", "all"))]
        for what, command in programs.items():
            work = partial(run_times, times=times if what != "git clone" else times // 4, command=command)
            SLOWEST.clear()
            results = in_turns(variants, work, rounds)
            base = statistics.median(results["off"])
            for word in ("matched", "all"):
                more = (ratio(results, word, "off") - 1) * base
                yield Row(
                    "hold", f"{what}, hold: {word}", f"×{ratio(results, word, 'off'):.3f}",
                    note=f"{more / 1e6:+.2f} ms on {base / 1e6:.2f} ms with hold: off; "
                    f"×{ratio(results, word, 'nothing'):.3f} of nothing",
                )  # fmt: skip
    told = SEEN["all"]
    for name, found, promised in (("p50", told.p50_ms, JUDGED_P50_MS), ("p99", told.p99_ms, JUDGED_P99_MS)):
        yield Row("hold", f"exec to judged, {name}", f"{found:.2f} ms", f"≤ {promised:g} ms", found <= promised)
    yield Row(
        "hold", "by its files, the first time, p50", f"{told.late_p50_ms:.1f} ms", note=f"p99 {told.late_p99_ms:.1f} ms"
    )
    yield Row("hold", "packets held, hold: all", f"{told.held_packets}", note="in the last round")


def _of(word: str) -> Callable[[], AbstractContextManager[Path | None]]:
    return lambda: holding(word)
