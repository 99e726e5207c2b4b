"""Exec: a forbidden program whose first instruction would leave a trace leaves none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks import scene
from benchmarks.proof.figures import Figure, count
from tests.rig.build import program
from tests.rig.daemon import Daemon

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


def never_runs(tries: int) -> Iterator[Figure]:
    """By name, and by an argument alone; and one that is allowed, so that the trace is known to be left."""
    with Daemon(scene.LABEL, policies={"proof.yaml": POLICY}) as daemon:
        cgroup = scene.make_workload(daemon, "exec")
        tracer = program("tracer")
        named = Path(shutil.copy(tracer, daemon.directory / "forbidden"))
        for what, path, arguments, wanted in (
            ("control, allowed", tracer, "--quiet", 100),
            ("forbidden by name", named, "--quiet", 0),
            ("forbidden by arguments alone", tracer, "--quiet --forbidden=yes", 0),
        ):
            trace = daemon.directory / "trace"
            trace.unlink(missing_ok=True)
            number = wanted or tries
            subprocess.run(
                [program("spawn"), str(number), path],
                env={"T": str(trace), "SPAWN_ARGS": arguments},
                preexec_fn=scene.entering(cgroup),
                stdout=subprocess.DEVNULL,
                check=True,
            )
            traces = trace.stat().st_size if trace.exists() else 0
            yield count("exec", f"{what}: ran its first instruction", number, traces, wanted)
