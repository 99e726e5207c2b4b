"""Restarts, upgrades and crashes: what is cut off stays so all along, rules in the kernel go on, and nothing is left behind.

Three workloads live through all of it. ``cut`` is severed once, and insists on getting out for the whole run. ``turned``
insists, too, and is killed and released by orders in the midst of which the daemon dies. ``free`` is watched and free: while
there is no daemon, forbidden programs are started in it.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from statistics import median

from benchmarks import scene
from benchmarks.proof import objects
from benchmarks.proof.figures import Figure, count
from killswitch.commands import FREE, Containment
from killswitch.errors import KillswitchError
from killswitch.kernel import cgroupfs, pins
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.loader import find_object
from tests.rig.build import program
from tests.rig.daemon import ROOT, Daemon
from tests.rig.farside import Counter, Packet
from tests.rig.netns import FarSide

CUT_PORT, TURNED_PORT = 7001, 7002
SEVERED, CUT_OFF = Containment(severed=True), Containment(severed=True, frozen=True)
CROWD = 150  # processes of the workload that orders are about: they take as long as that
ORDER_S = 0.025  # so the daemon dies within an order, or just behind it, while evidence is captured
IDLE_S = 0.3
UPGRADE_EVERY = 5
SPARE_DESCRIPTORS, SPARE_THREADS = 2, 2
POLICY = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: proof, version: 1}
workloads: [{cgroup: /killswitch/**}]
mode: enforce
rules:
  - {id: forbidden, title: A forbidden program, level: critical, on: exec,
     match: {name: {process.name: forbidden}}, condition: name, response: [kill_process]}
  - {id: severing, title: A program for which its workload is cut off, level: critical, on: exec,
     match: {name: {process.name: severing}}, condition: name, response: [kill_process, sever]}
"""


class Trial:
    """One daemon that dies again and again. Counts what must not be (``wrong``), and what was tried (``tried``)."""

    def __init__(self, daemon: Daemon, far: FarSide, counter: Counter, seed: int) -> None:
        self.daemon, self._far, self._counter, self._random = daemon, far, counter, random.Random(seed)
        self.wrong: Tally[str] = Tally()
        self.tried: Tally[str] = Tally()
        self.holdings: list[objects.Holdings] = []
        self.ever: set[tuple[str, int]] = set()
        self._places = self._two_places()
        self._insisting: dict[str, subprocess.Popen[bytes]] = {}
        self._since: dict[str, int] = {}  # workload -> time.time_ns() from which on nothing of it may arrive
        self._started = 0

    def _two_places(self) -> tuple[str, str]:
        """PYTHONPATHs of two installations whose objects differ, as those of two releases do."""
        package = self.daemon.directory / "copy" / "killswitch"
        shutil.copytree(ROOT / "killswitch", package, ignore=shutil.ignore_patterns("*.o"))
        (package / "bpf").mkdir(exist_ok=True)
        (package / "bpf" / "killswitch.bpf.o").write_bytes(find_object().read_bytes() + b"\0")
        here = self.daemon.env["PYTHONPATH"]
        return here, f"{package.parent}:{here}"

    def prepare(self) -> None:
        self.daemon.watched("free")
        for name, port in (("cut", CUT_PORT), ("turned", TURNED_PORT)):
            self.daemon.watched(name)
            self._insist(name, port)
        crowd = self.daemon.spawn(
            "turned", str(program("crowd")), str(CROWD), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert crowd.stdout
        crowd.stdout.readline()
        for port in (CUT_PORT, TURNED_PORT):  # control: it does get out
            self._hear(port)
        self.daemon.client.sever("cut", "proof", request_id=uuid.uuid4().hex)
        self._since["cut"] = time.time_ns()
        self.ever |= objects.pinned(self.daemon.pin_dir)

    def _insist(self, name: str, port: int) -> None:
        file = self.daemon.directory / f"{name}.tried"
        hosts = (self._far.far4, self._far.far6)
        self._insisting[name] = self.daemon.spawn(name, str(program("insist")), str(port), "2000", str(file), *hosts)

    def _hear(self, port: int, seconds: float = 10.0) -> None:
        since, end = time.time_ns(), time.monotonic() + seconds
        while not any(p.destination_port == port for p in self._counter.since(since)):
            if time.monotonic() > end:
                raise TimeoutError(f"nothing reached the far side's port {port}, though nobody was severed")
            time.sleep(0.01)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """SIGTERM and a start, each so many times with another release's object."""
        self.tried["restarts"] += 1
        self.daemon.end(signal.SIGTERM)
        if self.tried["restarts"] % UPGRADE_EVERY == 0:
            self._other_release()
        self._gap()
        self._start()

    def crash(self) -> None:
        """SIGKILL at a random moment of a random kind, and a start."""
        how = self._random.choice((self._crash_idle, self._crash_starting, self._crash_in_order, self._crash_in_order))
        self.tried["crashes"] += 1
        how()
        self._gap()
        self._start()

    def _crash_idle(self) -> None:
        time.sleep(self._random.uniform(0, IDLE_S))
        self.daemon.kill9()
        self.tried["idle"] += 1

    def _crash_starting(self) -> None:
        """Also while it upgrades."""
        self.daemon.kill9()
        if self._random.random() < 0.5:
            self._other_release()
            self.tried["in an upgrade"] += 1
        process = self.daemon.launch()
        time.sleep(self._random.uniform(0, max(0.3, self.daemon.ready_seconds)))
        process.kill()
        process.wait()
        self.tried["starting"] += 1

    def _crash_in_order(self) -> None:
        """In the middle of a kill, or of a release: whatever of it was done by then is found by the next start."""
        w = self.daemon.workload("turned")
        killing = w is not None and w.desired == FREE
        if not killing:
            self._since.pop("turned", None)
        client, replied = self.daemon.client, []

        def order() -> None:
            with contextlib.suppress(KillswitchError):  # interrupted
                if killing:
                    result = client.kill("turned", reason="proof", request_id=uuid.uuid4().hex)
                else:
                    result = client.release("turned", reason="proof", stage="all", request_id=uuid.uuid4().hex)
                replied.append((result.complete, time.time_ns()))

        ordering = threading.Thread(target=order)
        ordering.start()
        time.sleep(self._random.uniform(0, ORDER_S))
        assert self.daemon.process
        self.daemon.process.kill()
        self.daemon.process.wait()
        ordering.join()
        self.daemon.kill9()
        self.tried["in a kill" if killing else "in a release"] += 1
        self.tried["orders cut short"] += not replied
        if killing and replied and replied[0][0]:
            self._since["turned"] = replied[0][1]

    def _other_release(self) -> None:
        here = self.daemon.env["PYTHONPATH"]
        self.daemon.env["PYTHONPATH"] = self._places[1 - self._places.index(here)]

    # --- between and after --------------------------------------------------------------------------------------------

    def _gap(self) -> None:
        """There is no daemon: rules that the kernel judges still are judged."""
        for name, workload in (("forbidden", "free"), ("severing", f"severed-{self._started}")):
            if name == "severing" and not (self.daemon.cgroup_dir / workload).is_dir():
                continue
            trace, path = self.daemon.directory / "trace", self.daemon.directory / name
            if not path.exists():
                shutil.copy(program("tracer"), path)
            ended = self.daemon.spawn(workload, "/usr/bin/env", "-i", f"T={trace}", str(path)).wait(20)
            self.tried["forbidden programs without a daemon"] += 1
            self.wrong["forbidden programs that ran without a daemon"] += ended != -signal.SIGKILL or trace.exists()
            trace.unlink(missing_ok=True)
            if name == "severing":
                sender = (str(program("sender")), "udp", self._far.far4, str(CUT_PORT + 2), "1", "1000")
                gets_out = self.daemon.spawn(workload, *sender).wait(20) == 0  # 1: it cannot even connect
                self.tried["severed by the kernel alone"] += 1
                self.wrong["not severed by the kernel alone"] += gets_out

    def _start(self) -> None:
        self.daemon.start()
        assert self.daemon.process
        self.holdings.append(objects.Holdings.of(self.daemon.process.pid))
        self.ever |= objects.pinned(self.daemon.pin_dir)
        for w in self.daemon.client.workloads():
            self.wrong["workloads not as they were to be"] += w.observed != w.desired
            if w.name.startswith("severed-"):
                self.wrong["severed by the kernel, and free after a start"] += not w.desired.severed
                self.daemon.client.release(w.name, reason="proof", stage="all", request_id=uuid.uuid4().hex)
                self._end(w.name)
        if (cut := self.daemon.workload("cut")) is None or cut.desired != SEVERED:
            self.wrong["workloads not as they were to be"] += 1
        turned = self.daemon.workload("turned")
        if turned and turned.desired == CUT_OFF:
            self._since.setdefault("turned", time.time_ns())
        elif "turned" in self._since:
            self.wrong["kills that were answered and lost"] += 1
        self.listen()
        self._started += 1
        if self._started % UPGRADE_EVERY == 0:
            self.daemon.watched(f"severed-{self._started}")

    def _end(self, name: str) -> None:
        path = self.daemon.cgroup_dir / name
        cgroupfs.kill(path)
        cgroupfs.remove(path, timeout_s=5)

    def listen(self) -> None:
        """Count what came through of those who are cut off, and forget the rest."""
        for name, port in (("cut", CUT_PORT), ("turned", TURNED_PORT)):
            if name in self._since:
                self.wrong["packets of a severed workload"] += len(self._of(port, self._since[name]))
        for _ in range(len(self._counter.packets) - 1000):
            self._counter.packets.popleft()

    def _of(self, port: int, since: int) -> list[Packet]:
        return [p for p in self._counter.since(since) if p.destination_port == port]

    # --- the end ------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The daemon is gone: kernel and ledger say the same, and nothing is left of all the others."""
        time.sleep(0.2)
        self.listen()
        self.tried["packets tried"] = int.from_bytes((self.daemon.directory / "cut.tried").read_bytes(), "little")
        shown = {w.cgroup: w.desired for w in self.daemon.client.workloads()}
        self.daemon.stop()
        with contextlib.closing(
            DataPlane.open(self.daemon.pin_dir, cgroup_mount=cgroupfs.find_mount(), obj=self._object())
        ) as plane:
            in_kernel = {
                f"/{cgroupfs.path_of(c).relative_to(cgroupfs.find_mount())}": w for c, w in plane.workloads().items()
            }
        in_ledger = desired_on_disk(self.daemon.state_dir / "ledger.db")
        for cgroup in shown.keys() | in_kernel.keys() | in_ledger.keys():
            kernel = in_kernel[cgroup].containment if cgroup in in_kernel else None
            if not shown.get(cgroup) == kernel == in_ledger.get(cgroup, FREE):
                self.wrong["workloads of which kernel and ledger disagree"] += 1
        self.wrong["BPF objects left in the kernel"] += len(objects.leaked(frozenset(self.ever), self.daemon.pin_dir))
        self.wrong["data planes pinned beside the one in force"] += len(pins.generations(self.daemon.pin_dir)) - 1
        self.wrong["sockets and files left in the runtime directory"] += len(list(self.daemon.runtime_dir.iterdir()))
        self.wrong["half-written files"] += len(list(self.daemon.state_dir.rglob("*.partial")))

    def _object(self) -> Path:
        """Of the release that ran last: opening the other's would be an upgrade."""
        here = self.daemon.env["PYTHONPATH"].split(":")[0]
        copied = Path(here, "killswitch", "bpf", "killswitch.bpf.o")
        return copied if here == str(self.daemon.directory / "copy") else find_object()


def desired_on_disk(ledger: Path) -> dict[str, Containment]:
    """What the ledger's file says of each cgroup, read without the ledger's own code."""
    import json

    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        rows = [json.loads(data) for (data,) in connection.execute("SELECT data FROM desired")]
    return {row["cgroup"]: Containment(**row["containment"]) for row in rows}


WRONG = (
    "packets of a severed workload",
    "kills that were answered and lost",
    "workloads not as they were to be",
    "workloads of which kernel and ledger disagree",
    "forbidden programs that ran without a daemon",
    "not severed by the kernel alone",
    "severed by the kernel, and free after a start",
    "BPF objects left in the kernel",
    "data planes pinned beside the one in force",
    "sockets and files left in the runtime directory",
    "half-written files",
)


def survived(restarts: int, crashes: int, *, seed: int, label: str = scene.LABEL) -> Iterator[Figure]:
    """So many of each, in a random order."""
    with Daemon(label, policies={"proof.yaml": POLICY}) as daemon, FarSide(label) as far, Counter(far) as counter:
        listeners = [
            far.listen(port, family=family, kind=kind)
            for port in (CUT_PORT, TURNED_PORT)
            for family in (socket.AF_INET, socket.AF_INET6)
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        ]
        try:
            trial = Trial(daemon, far, counter, seed)
            trial.prepare()
            order = [trial.restart] * restarts + [trial.crash] * crashes
            random.Random(seed).shuffle(order)
            for act in order:
                act()
            trial.finish()
        finally:
            for listener in listeners:
                listener.close()
    tried, tries = trial.tried, restarts + crashes
    moments = ", ".join(f"{tried[k]} {k}" for k in ("idle", "starting", "in an upgrade", "in a kill", "in a release"))
    notes = {
        "packets of a severed workload": f"{tried['packets tried']:,} times tried to get out; seed {seed}",
        "kills that were answered and lost": f"{tried['orders cut short']} orders cut short; crashes: {moments}",
    }
    of = {
        "forbidden programs that ran without a daemon": tried["forbidden programs without a daemon"],
        "not severed by the kernel alone": tried["severed by the kernel alone"],
        "severed by the kernel, and free after a start": tried["severed by the kernel alone"],
    }
    for what in WRONG:
        yield count(
            "crashes",
            what,
            of.get(what, tries),
            trial.wrong[what],
            note=notes.get(what, f"{restarts} restarts, {crashes} crashes"),
        )
    yield _grown(trial.holdings, tries)


def _grown(held: list[objects.Holdings], tries: int) -> Figure:
    """What the daemon holds when it is ready: the last quarter of its lives against the first."""
    quarter = max(1, len(held) // 4)
    first, last = (
        tuple(median(field) for field in zip(*(astuple(h) for h in part), strict=True))
        for part in (held[:quarter], held[-quarter:])
    )
    more = [after - before for before, after in zip(first, last, strict=True)]
    return Figure(
        "crashes",
        "descriptors and threads, the last lives against the first",
        tries,
        f"{more[0]:+g}, {more[1]:+g}",
        f"≤ {SPARE_DESCRIPTORS}, {SPARE_THREADS}",
        more[0] <= SPARE_DESCRIPTORS and more[1] <= SPARE_THREADS,
        f"{last[0]:g} and {last[1]:g}; {more[2] / 1024:+.1f} MiB resident",
    )
