"""What containment speaks of: the workload it is told to contain, and the data plane as far as it needs it."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from killswitch.commands import Containment, Outcome, Receipt, Step
from killswitch.kernel import cgroupfs
from killswitch.kernel.census import Census
from killswitch.kernel.frames import Attached, Frames

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OnReceipt = Callable[[Receipt], None]
Proof = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class WorkloadRef:
    """A workload as an order names it. The id decides; the path is for people, and may lead elsewhere by now."""

    id: int  # cgroup id
    path: Path  # its directory in the mounted hierarchy
    name: str

    def directory(self) -> Path:
        """The cgroup's directory, found by its id. Raises Gone when it was removed, even when its path exists anew."""
        return cgroupfs.path_of(self.id)


class Stage(enum.StrEnum):
    """How far a release goes."""

    THAW = "thaw"  # it runs again, still severed
    NETWORK = "network"  # it is connected again, still frozen when it was
    ALL = "all"


class Plane(Protocol):
    """What containment needs of ``kernel.dataplane.DataPlane``. All but the last four, which are called in a thread, take some
    microseconds and never wait; the first three raise Gone for a cgroup that is not watched."""

    def set_containment(self, cgroup_id: int, containment: Containment) -> None: ...
    def containment(self, cgroup_id: int) -> Containment: ...
    def flows(self, cgroup_id: int) -> DataclassInstance: ...
    def workloads(self) -> Mapping[int, object]: ...
    def census(self, cgroups: frozenset[int] | None) -> Census: ...
    def cut_handed(self, cgroup_id: int, fd: int) -> bool: ...
    @property
    def frames(self) -> Frames: ...
    def guard_namespace(self, inode: int, tid: int, programs: Mapping[str, str] = ...) -> Attached: ...
    def tidy(self) -> None: ...


class StepFailed(Exception):
    """A step was tried and its proof did not hold; ``proof`` is what was observed instead."""

    def __init__(self, message: str, proof: Mapping[str, str | int | float] | None = None) -> None:
        super().__init__(message)
        self.proof = dict(proof or {})


class Stopwatch:
    """Makes a receipt of what happens between its creation and ``receipt``."""

    def __init__(self, step: Step, workload: int) -> None:
        self._step, self._workload, self._started = step, workload, time.monotonic_ns()

    @property
    def ms(self) -> float:
        return round((time.monotonic_ns() - self._started) / 1e6, 3)

    def receipt(self, outcome: Outcome, proof: Mapping[str, str | int | float], error: str = "") -> Receipt:
        return Receipt(self._step, outcome, self._workload, self._started, time.monotonic_ns(), dict(proof), error)
