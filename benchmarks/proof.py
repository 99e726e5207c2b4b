"""``make proof``: the long runs behind the promises. Each line says what was tried, how often, and what came through.

Exit status 0 only when nothing did.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

from benchmarks import proof_wire, scene
from killswitch.commands import Outcome, Step
from killswitch.control.client import Client
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

POLICY = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: proof, version: 1}
workloads:
  - cgroup: /killswitch/**
mode: enforce
rules:
  - id: forbidden-name
    title: A forbidden program by its name
    level: critical
    on: exec
    match:
      name: {process.name: forbidden}
    condition: name
    response: [kill_process]
  - id: forbidden-argument
    title: A forbidden argument, whatever the program is called
    level: critical
    on: exec
    match:
      flag: {process.args: --forbidden=yes}
    condition: flag
    response: [kill_process]
"""
SETTLE = 0.1  # seconds to listen at the far side after each reply
PORT = 7000


def exec_never_runs(tries: int) -> bool:
    """A forbidden program whose first instruction leaves a trace: by name, and by an argument alone."""
    held = True
    with Daemon(scene.LABEL, policies={"proof.yaml": POLICY}) as daemon:
        cgroup = scene.make_workload(daemon, "exec")
        tracer = program("tracer")
        named = Path(shutil.copy(tracer, daemon.directory / "forbidden"))
        for what, path, arguments, expected in (
            ("control: allowed, it leaves traces", tracer, "--quiet", 100),
            ("forbidden by name", named, "--quiet", 0),
            ("forbidden by arguments alone", tracer, "--quiet --forbidden=yes", 0),
        ):
            trace = daemon.directory / "trace"
            trace.unlink(missing_ok=True)
            count = 100 if expected else tries
            subprocess.run(
                [program("spawn"), str(count), path],
                env={"T": str(trace), "SPAWN_ARGS": arguments},
                preexec_fn=scene.entering(cgroup),
                stdout=subprocess.DEVNULL,
                check=True,
            )
            traces = trace.stat().st_size if trace.exists() else 0
            print(f"exec   {what}: {count:,} tries, {traces} traces", flush=True)
            held &= traces == expected
    return held


def severed_is_severed(kills: int) -> bool:
    """Kills under load; each with its own sender, in turn UDP and TCP, IPv4 and IPv6, established and new connections."""
    leaked = unproven = 0
    sent: dict[str, int] = {}
    with Daemon(scene.LABEL) as daemon, FarSide(scene.LABEL) as far, Counter(far) as counter:
        cgroup = scene.make_workload(daemon, "sender")
        sinks = [
            (f"{'udp' if kind == socket.SOCK_DGRAM else 'tcp'}{6 if family == socket.AF_INET6 else 4}", kind,
             Sink(far, family=family, kind=kind, port=PORT))
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            for family in (socket.AF_INET, socket.AF_INET6)
        ]  # fmt: skip
        try:
            for number in range(kills):
                name, kind, sink = sinks[number % len(sinks)]
                before, packets, frozen = _kill_a_sender(daemon.client, cgroup, counter, kind, sink)
                sent[name] = sent.get(name, 0) + before
                leaked += packets
                unproven += not frozen
                if packets or not frozen:
                    print(
                        f"kill   {name}, number {number}: {packets} packets after the reply, frozen: {frozen}",
                        flush=True,
                    )
        finally:
            for *_, sink in sinks:
                sink.close()
    heard = ", ".join(f"{k} {v:,}" for k, v in sorted(sent.items()))
    print(f"kill   {kills} kills under load (packets heard before them: {heard})")
    print(
        f"kill   {leaked} packets at the far side after the reply; frozen proven {kills - unproven} times", flush=True
    )
    return not leaked and not unproven


def _kill_a_sender(client: Client, cgroup: Path, counter: Counter, kind: int, sink: Sink) -> tuple[int, int, bool]:
    counter.packets.clear()
    address, port = sink.address
    sender = subprocess.Popen(
        [program("sender"), "udp" if kind == socket.SOCK_DGRAM else "tcp", address, str(port), "60", "100"],
        preexec_fn=scene.entering(cgroup),
    )
    try:
        counter.wait_for(20)
        result = client.kill(cgroup.name, reason="proof", request_id=uuid.uuid4().hex)
        replied = time.time_ns()
        used = _cpu_usec(cgroup)
        time.sleep(SETTLE)
        at = {r.step: r.outcome for r in result.receipts}
        frozen = (
            at.get(Step.SEVER) is at.get(Step.FREEZE) is Outcome.DONE
            and "frozen 1" in (cgroup / "cgroup.events").read_text()
            and _cpu_usec(cgroup) == used
            and sender.poll() is None
        )
        return len(counter.packets), len(counter.since(replied)), frozen
    finally:
        sender.kill()
        client.release(cgroup.name, reason="proof", stage="all")
        sender.wait(10)


def _cpu_usec(cgroup: Path) -> int:
    return int((cgroup / "cpu.stat").read_text().split()[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make proof PROOF_ARGS=…", description=__doc__)
    parser.add_argument("--execs", type=int, default=10_000, help="tries of each kind (default %(default)s)")
    parser.add_argument("--kills", type=int, default=200, help="kills under load (default %(default)s)")
    parser.add_argument(
        "--flows", type=int, default=1_000, help="of each kind that the wire is judged by (default %(default)s)"
    )
    args = parser.parse_args()
    started = time.monotonic()
    held = [exec_never_runs(args.execs), proof_wire.nothing_of_it_leaves(args.flows), severed_is_severed(args.kills)]
    print(f"{'all held' if all(held) else 'NOT all held'}, in {time.monotonic() - started:.0f} s (pid {os.getpid()})")
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())
