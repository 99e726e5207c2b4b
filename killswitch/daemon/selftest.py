"""Proves the switch on a workload of our own: a canary that sends to us over loopback is cut off, frozen and let go again.

What is asserted is what is seen from outside of it: datagrams that arrive or do not, and its CPU time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass

from killswitch.commands import FREE, Containment, Outcome, Receipt, Step
from killswitch.daemon.core import Core
from killswitch.daemon.workloads import Workload
from killswitch.errors import KernelError
from killswitch.kernel import cgroupfs, scheduling

log = logging.getLogger("killswitch.selftest")

SECONDS = 5.0  # that the canary is waited for
SILENCE = 0.3  # seconds without a datagram that count as silence; the canary sends every 5 ms

_CANARY = """
import os, socket, sys, time
with open(sys.argv[1], "w") as procs: procs.write(str(os.getpid()))
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.sendto(b"tweet", ("127.0.0.1", int(sys.argv[2])))
    except OSError: pass
    time.sleep(0.005)
"""


@dataclass(frozen=True, slots=True)
class Canary:
    listener: socket.socket

    async def heard(self, seconds: float) -> bool:
        """Whether a datagram comes in within this time; what was waiting already does not count."""
        while True:
            try:
                self.listener.recv(16)
            except BlockingIOError:
                break
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_recv(self.listener, 16)
        except TimeoutError:
            return False
        return True


async def run(core: Core) -> tuple[Workload, str, list[Receipt]]:
    """(the canary's workload, its incident, receipts): FAILED receipts say what was not as it must be."""
    cgroup = f"{core.config.cgroup_parent}/selftest-{os.getpid()}-{time.monotonic_ns()}"
    path = core.path_of(cgroup)
    cgroupfs.create(path)
    process = None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        try:
            w = core.watch(cgroup, explicit=True)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", _CANARY, str(path / "cgroup.procs"), str(listener.getsockname()[1])
            )
            scheduling.ordinary(process.pid)
            incident, receipts = await _prove(core, w, Canary(listener))
        finally:
            if process and process.returncode is None:
                process.kill()
            if found := core.workloads.at(cgroup):
                if found.desired != FREE:
                    await core.release(found, "all", "end of the self-test")
                core.unwatch(found)
            if process:
                await process.wait()
            try:
                await asyncio.to_thread(cgroupfs.remove, path)
            except KernelError as e:
                log.error("self-test: %s", e)
    return w, incident, receipts


async def _prove(core: Core, w: Workload, canary: Canary) -> tuple[str, list[Receipt]]:
    receipts: list[Receipt] = []

    def check(step: Step, started: int, ok: bool, proof: str, wrong: str) -> None:
        outcome = Outcome.DONE if ok else Outcome.FAILED
        receipts.append(
            Receipt(
                step, outcome, w.id, started, time.monotonic_ns(), {"seen": proof} if ok else {}, "" if ok else wrong
            )
        )

    start = time.monotonic_ns()
    if not await canary.heard(SECONDS):
        check(Step.RECONNECT, start, False, "", "the canary was not heard at all, so nothing can be proven")
        return "", receipts
    receipts += await core.contain(w, Containment(True, True), capture=False, reason="self-test")
    incident = w.incident
    start = time.monotonic_ns()
    check(Step.SEVER, start, not await canary.heard(SILENCE), "no datagram came", "the severed canary was still heard")
    before = cgroupfs.cpu_usage_ns(core.path_of(w.cgroup))
    await asyncio.sleep(SILENCE)
    used = cgroupfs.cpu_usage_ns(core.path_of(w.cgroup)) - before
    check(Step.FREEZE, start, used == 0, "CPU time flat", f"the frozen canary used {used} ns of CPU")
    receipts += await core.release(w, "thaw", "self-test")
    start = time.monotonic_ns()
    check(
        Step.SEVER, start, not await canary.heard(SILENCE), "thawed, no datagram came", "the severed canary was heard"
    )
    receipts += await core.release(w, "network", "self-test")
    start = time.monotonic_ns()
    check(
        Step.RECONNECT, start, await canary.heard(SECONDS), "a datagram came", "the released canary was not heard again"
    )
    return incident, receipts
