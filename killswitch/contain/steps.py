"""The single steps of containment. Each does one thing and proves it: the proof is returned, or StepFailed raised with
what was observed instead. KernelError comes through as it is."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Container, Mapping
from functools import partial
from pathlib import Path

from killswitch.commands import Containment
from killswitch.contain import seals
from killswitch.contain.model import Plane, Proof, StepFailed
from killswitch.errors import Gone, KernelError
from killswitch.kernel import cgroupfs, netns, procfs, sockets, unseen
from killswitch.kernel.census import Census
from killswitch.kernel.frames import WORKLOADS, WRITTEN

log = logging.getLogger("killswitch.contain")

FLAT_WINDOW_S = 0.003  # over which a frozen workload must use no CPU time at all
FLAT_LOOKS, FLAT_WINDOWS = 3, 5  # looks in a window, and windows after which it goes on and on
TERMINATE_S = 5.0


# --- network ----------------------------------------------------------------------------------------------------------


def sever(plane: Plane, cgroup: int, desired: Containment) -> Proof:
    """Cut the workload off, at once, and pin what else is desired beside it. Read back from the data plane."""
    plane.set_containment(cgroup, plane.containment(cgroup) | desired)
    now = plane.containment(cgroup)
    if not now.severed:
        raise StepFailed("the data plane does not show it as severed", {"containment": str(now)})
    return {"containment": str(now), **flows(plane, cgroup)}


def pin(plane: Plane, cgroup: int, desired: Containment) -> None:
    """Keep in the kernel what is desired, so that the next daemon finds it; without a data plane, the ledger has it."""
    with contextlib.suppress(KernelError):
        plane.set_containment(cgroup, plane.containment(cgroup) | desired)


def reconnect(plane: Plane, cgroup: int) -> Proof:
    """Let the workload onto the network again."""
    plane.set_containment(cgroup, dataclasses.replace(plane.containment(cgroup), severed=False, terminated=False))
    now = plane.containment(cgroup)
    if now.severed:
        raise StepFailed("the data plane still shows it as severed", {"containment": str(now)})
    return {"containment": str(now), **flows(plane, cgroup)}


def flows(plane: Plane, cgroup: int) -> Proof:
    """The flow counters, for a later reading to be compared with; none when they cannot be read."""
    with contextlib.suppress(KernelError):
        return dict(dataclasses.asdict(plane.flows(cgroup)))
    return {}


def destroy_sockets(
    plane: Plane, cgroup: int, path: Path, spare: Container[int], *, running: bool = True, waiting: bool = False
) -> tuple[Proof, sockets.Report]:
    """Destroy what the workload's cgroups made and its processes hold. Blocks: call it in a thread.

    ``running``: see to it as well that frames are judged at the devices where they may be made; what is frozen makes none.
    ``waiting``: drop as well what it has sent and what waits for a neighbour's address.
    """
    cgroups = cgroupfs.subtree_ids(path)
    try:
        census = plane.census(cgroups)
    except KernelError as e:
        log.warning("no census of sockets, /proc is asked for every process: %s", e)
        census = None
    pids = cgroupfs.processes(path)
    devices, sealed, unguarded = _shut(plane, path, census, pids) if running else (0, 0, [])
    cut = partial(plane.cut_handed, cgroup)
    report = sockets.destroy_sockets(pids, cgroups, spare, census, cut, waiting=waiting)
    proof: Proof = {
        "destroyed": len(report.destroyed),
        "shut": report.shut,
        "remaining": len(report.remaining),
        "foreign": report.foreign,
        "handed": report.handed,
        "namespaces": report.namespaces,
    }
    if devices:
        proof["devices"] = devices
    if report.muted:
        proof["muted"] = report.muted
    if report.waited_for:
        proof["neighbours"] = report.waited_for
    stays = unguarded if report.muted else []
    if report.loose:  # nothing else ends what they send
        holders = [pid for pid in pids if not report.loose.isdisjoint(sockets.held_sockets([pid]))]
        ended, failed = unseen.end(holders)
        proof["ended_holders"] = len(ended)
        stays = [*stays, *failed]
    if report.unheld and not running:  # what is frozen sends nothing through a tunnel, but the kernel may
        sealed, errors = seals.seal(plane, path, _lives(census, pids))
        stays = [*stays, *errors]
    if sealed:
        proof["sealed_devices"] = sealed
    if report.unheld:
        proof["unheld"] = sum(map(len, report.unheld.values()))
        open_in = report.unheld.keys() - plane.frames.sealed()
        stays = [
            *stays,
            *(f"{s}: held by none of its processes, and still there" for n in open_in for s in report.unheld[n]),
        ]
    proof |= {f"held_{kind}": n for kind, n in sorted(report.held.items())}
    if report.not_listed:
        proof["not_listed"] = ",".join(report.not_listed)
    if unguarded:
        proof["unguarded"] = "; ".join(unguarded[:3])
    if not report.complete or stays:
        causes = [*report.errors, *stays, *(f"{s}: still there" for s in report.remaining)]
        more = f", and {len(causes) - 3} more" if len(causes) > 3 else ""
        raise StepFailed("; ".join(causes[:3]) + more, proof)
    return proof, report


def _shut(plane: Plane, path: Path, census: Census | None, pids: list[int]) -> tuple[int, int, list[str]]:
    """See to what goes past the programs on a cgroup, of a severed workload that runs: (devices at which its frames are judged,
    devices that let nothing out, what could not be done)."""
    lives = _lives(census, pids)
    framing = census.framing if census else lives
    devices, errors = guard(plane, framing)
    written, more = guard(plane, {n: tid for n, tid in lives.items() if n not in framing}, WRITTEN)
    sealed, others = seals.seal(plane, path, lives)
    return devices + written, sealed, [*errors, *more, *others]


def _lives(census: Census | None, pids: list[int]) -> dict[int, int]:
    """Inode of a network namespace → a thread of the workload in it."""
    return {net: tid for tid, net in census.lives.items()} if census else netns.namespaces_of(pids)


def guard(
    plane: Plane, namespaces: Mapping[int, int], programs: Mapping[str, str] = WORKLOADS
) -> tuple[int, list[str]]:
    """Have frames of packet sockets (or what ``programs`` are for) judged at every device of these network namespaces (inode → a
    thread that lives in it): (how many devices, what could not be done). Blocks some milliseconds for each device at which
    nothing was before."""
    devices, errors = 0, []
    for inode, tid in namespaces.items():
        try:
            attached = plane.guard_namespace(inode, tid, programs)
        except Gone:
            continue
        except KernelError as e:
            errors.append(str(e))
            continue
        devices += len(attached.devices)
        errors += attached.errors
    return devices, errors


def prepare_thaw(plane: Plane, path: Path) -> None:
    """What is to run while it is severed: see to it that its frames go nowhere. Blocks. Raises StepFailed."""
    _, _, errors = _shut(plane, path, plane.census(cgroupfs.subtree_ids(path)), [])
    if errors:
        raise StepFailed(
            f"its frames would go out: {'; '.join(errors[:3])}; release its network first, or terminate it"
        )


# --- freezer ----------------------------------------------------------------------------------------------------------


async def freeze(path: Path, timeout_s: float, *, kill_unfrozen: bool) -> Proof:
    """Freeze, wait until the kernel says so, and see the CPU time stand still.

    A tree that does not freeze in time is killed when ``kill_unfrozen`` (proof ``fallback=killed``), for a workload that
    runs on is worse than a dead one; without, StepFailed names who would not stop.
    """
    started = time.monotonic()
    cgroupfs.freeze(path, True)
    frozen = await cgroupfs.wait_frozen(path, timeout_s)
    ms = round((time.monotonic() - started) * 1e3, 3)
    if frozen:
        window = asyncio.ensure_future(cpu_flat(path))
        await asyncio.sleep(0)  # it has begun, and there is time to count them
        processes = len(cgroupfs.processes(path))
        flat = await window
        if flat is not None:
            return {"frozen": 1, "ms": ms, "processes": processes, **flat}
    seen: Proof = {"frozen": int(frozen), "ms": ms}
    why = "CPU time goes on although it is frozen" if frozen else f"not frozen after {timeout_s:g} s"
    restless = await asyncio.to_thread(_restless, path)
    if not kill_unfrozen:
        raise StepFailed(f"{why}: {restless}; terminate it, or free what these processes wait for", seen)
    killed = await terminate(path, TERMINATE_S)
    return {**seen, **killed, "fallback": "killed", "why": f"{why}: {restless}"}


async def cpu_flat(path: Path) -> Proof | None:
    """The proof that the cgroup used no CPU time over a window; None when it goes on and on using some."""
    used = cgroupfs.cpu_usage_ns(path)
    since = time.monotonic()
    for _ in range(FLAT_LOOKS * FLAT_WINDOWS):
        await asyncio.sleep(FLAT_WINDOW_S / FLAT_LOOKS)
        before, used = used, cgroupfs.cpu_usage_ns(path)
        now = time.monotonic()
        if used != before:
            since = now  # the last task to freeze was still on its way out
        elif now - since >= FLAT_WINDOW_S:
            return {"cpu_ns": 0, "window_ms": round((now - since) * 1e3, 3)}
    return None


def _restless(path: Path, limit: int = 5) -> str:
    """Who runs or waits where the freezer cannot reach: "PID (name, state)", …"""
    found = []
    with contextlib.suppress(KernelError):
        for pid in cgroupfs.processes(path):
            with contextlib.suppress(Gone):
                s = procfs.stat(pid)
                if s.state in "RD":
                    found.append(f"{pid} ({s.comm}, {s.state})")
            if len(found) == limit:
                break
    return ", ".join(found) or "no process stands out"


async def thaw(path: Path, timeout_s: float) -> Proof:
    """Let it run again."""
    cgroupfs.freeze(path, False)
    if not await cgroupfs.wait_thawed(path, timeout_s):
        raise StepFailed("still frozen: a cgroup above it is; thaw that one", {"frozen": 1})
    return {"frozen": 0, "processes": len(cgroupfs.processes(path))}


# --- end --------------------------------------------------------------------------------------------------------------


async def terminate(path: Path, timeout_s: float) -> Proof:
    """SIGKILL everything, and see that nothing lives there any more."""
    started = time.monotonic()
    processes = len(cgroupfs.processes(path))
    by = await asyncio.to_thread(cgroupfs.kill, path)
    empty = await cgroupfs.wait_empty(path, timeout_s)
    ms = round((time.monotonic() - started) * 1e3, 3)
    if not empty:
        left = await asyncio.to_thread(_restless, path)
        raise StepFailed(f"not empty {timeout_s:g} s after SIGKILL: {left}", {"populated": 1, "by": by, "ms": ms})
    return {"populated": 0, "by": by, "ms": ms, "processes": processes}
