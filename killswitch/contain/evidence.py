"""Evidence: what a workload is, captured while it is frozen, in one folder that its manifest describes.

manifest.json    what, when, how complete, and the SHA-256 of every other file; written last: without it, not finished
processes.json   the process tree: command lines, executables with SHA-256, names (never values) of the environment
files.json       open files
sockets.json     destroyed, present, and unix sockets
memory.json      executable memory that no file on disk backs
hot.json         the hottest functions, when the finding was about CPU use
executables/     copies of executables that have no name any more
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from killswitch.commands import Containment
from killswitch.contain import symbols
from killswitch.contain.collect import Collector, Limits
from killswitch.contain.folder import Folder, incident_folder
from killswitch.contain.model import Proof, WorkloadRef
from killswitch.events import boot_id
from killswitch.kernel import cgroupfs
from killswitch.kernel.sockdiag import InetSocket

__all__ = ["Capture", "Limits", "Subject"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose evidence, and what is known of it already."""

    workload: WorkloadRef
    incident: str
    containment: Containment  # observed as the capture begins
    hot: tuple[tuple[int, int, int], ...] = ()  # (pid, address, samples)
    destroyed: tuple[InetSocket, ...] = ()


class Capture:
    """One capture. ``run`` blocks, for ``limits.seconds`` and some: call it in a thread. It calls ``breathe`` between two
    processes, which may hold it up while something is urgent."""

    def __init__(
        self, evidence_dir: Path, subject: Subject, limits: Limits, breathe: Callable[[], object] = lambda: None
    ) -> None:
        self._evidence_dir, self._subject, self._limits, self._breathe = evidence_dir, subject, limits, breathe

    def run(self) -> Proof:
        """The proof names the folder and the manifest's hash. Raises StepFailed (a full disk), Gone (nothing to capture)."""
        subject, started, clock = self._subject, time.time(), time.monotonic()
        path = subject.workload.directory()
        folder = Folder(incident_folder(self._evidence_dir, subject.incident or f"workload-{subject.workload.id}"))
        collector = Collector(folder, self._limits, clock + self._limits.seconds, self._breathe)
        used = cgroupfs.cpu_usage_ns(path)
        pids = cgroupfs.processes(path)
        folder.write_rows("processes.json", collector.processes(pids))
        folder.write_rows("files.json", collector.files())
        folder.write_rows("memory.json", collector.memory())
        folder.write_json("sockets.json", collector.sockets(pids, cgroupfs.subtree_ids(path), subject.destroyed))
        if subject.hot:
            self._name_functions(folder, collector)
        used = cgroupfs.cpu_usage_ns(path) - used
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "incident": subject.incident,
            "workload": {"id": subject.workload.id, "name": subject.workload.name, "cgroup": cgroupfs.below_root(path)},
            "containment": str(subject.containment),
            "boot_id": boot_id(),
            "machine": platform.machine(),
            "kernel": platform.release(),
            "started_unix": started,
            "finished_unix": time.time(),
            "processes": len(collector.read),
            "cpu_ns_meanwhile": used,  # 0: nothing of it ran while this was captured, so it all belongs together
            "complete": not collector.left_out,
            "left_out": collector.left_out,
            "files": folder.files,
        }
        digest = folder.write_json("manifest.json", manifest, durable=True)
        return {
            "folder": str(folder.path),
            "manifest_sha256": digest,
            "processes": len(collector.read),
            "cpu_ns": used,
            "files": len(folder.files),
            "left_out": len(collector.left_out),
        }

    def _name_functions(self, folder: Folder, collector: Collector) -> None:
        named, problem = symbols.name(self._subject.hot)
        if problem:
            collector.left_out.append(problem)
        folder.write_json("hot.json", [asdict(n) | {"address": f"{n.address:#x}"} for n in named])
