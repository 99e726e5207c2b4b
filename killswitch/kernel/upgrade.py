"""From what is pinned to a data plane in force: adopt it, load it, or put a new generation in the place of an old one.

The order of an upgrade keeps containment without a gap and loses no verdict: the new generation takes over workloads,
containment and policy, is attached beside the old one everywhere (both decide; the stricter wins), and only then is the
old one taken away. A crash at any point leaves the old one whole, or both; the next start carries on from there.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from killswitch.commands import Containment
from killswitch.errors import Gone, KernelError
from killswitch.events import Lost
from killswitch.kernel import attach, frames, holds, hostcut, loader, lsm, pins
from killswitch.kernel.losses import Losses
from killswitch.kernel.ring import Ring
from killswitch.kernel.slots import Slots

log = logging.getLogger("killswitch.dataplane")


def bring_up(pin_dir: Path, mount: Path, obj: Path) -> tuple[loader.Loaded, bool, list[Lost]]:
    """The data plane of this object, in force; whether it was adopted; what an older one lost on the way.

    Raises KernelError; what was in force before stays in force then.
    """
    name = pins.name_of(obj)
    for generation in pins.generations(pin_dir):
        if generation.half_made:
            log.warning("removing a data plane that a crash left half made or half removed: %s", generation.path)
            generation.remove()
    others = [g for g in pins.generations(pin_dir) if g.path.name != name]
    final = pins.Generation(pin_dir / name)
    adopted = final.path.exists()
    loaded = _open(final) if adopted else _load(obj, final, others, mount)
    lost: list[Lost] = []
    try:
        for cgroup_id in loader.repair(loaded, mount):
            log.info("cgroup id %d is gone: no longer watched", cgroup_id)
            pins.detach_all(final.cgroup(cgroup_id))
            Slots(loaded).free(cgroup_id)
        loaded.keep_outside(mount)
        loaded.left_out = lsm.arm(final, obj)
        for old in others:
            lost += _retire(old, loaded, mount, pin_dir)
    except BaseException:
        loaded.close()
        raise
    return loaded, adopted, lost


def _open(pinned: pins.Generation) -> loader.Loaded:
    try:
        return loader.Loaded(pinned)
    except KernelError as e:
        hint = f"it is not whole ({e}); if nothing of it is to stay contained: rm -r {pinned.path}"
        raise KernelError(f"take over the data plane that is pinned at {pinned.path}", e.code, hint) from e


def _load(obj: Path, final: pins.Generation, others: list[pins.Generation], mount: Path) -> loader.Loaded:
    making = pins.Generation(final.path.with_name(final.path.name + pins.HALF_MADE))
    try:
        loaded = loader.load(obj, making)
        for old in others:
            _take_over(old, loaded, mount)
        attach.attach_tracing(making)
        loaded.generation = making.completed()
    except BaseException:
        making.remove()
        raise
    return loaded


def _take_over(old: pins.Generation, new: loader.Loaded, mount: Path) -> None:
    """Watch, judge and contain in the new generation what the old one does."""
    before = _open(old)
    try:
        known = loader.copy_known(before, new)
        _merge(before, new, mount)
        holds.carry_over(before, new)
        hostcut.carry_over(before, new)
        if not known:
            log.warning("%s keeps flows or programs otherwise: what is open or runs now is not followed", old.path)
        if not loader.copy_tables(before, new):
            log.warning("the policy tables of %s do not fit: execs are not judged until a policy is loaded", old.path)
    finally:
        before.close()


def _merge(old: loader.Loaded, new: loader.Loaded, mount: Path) -> None:
    slots = Slots(new)
    for cgroup_id, slot in old.slots().items():
        _, policies, severed, frozen, terminated, unattended, grace_ms = loader.read_workload(old, slot)
        contained = Containment(bool(severed), bool(frozen), bool(terminated))
        guards = loader.read_guards(old, slot)
        if cgroup_id in slots:
            slots.set_containment(cgroup_id, slots.containment(cgroup_id) | contained)
            slots.set_unattended(cgroup_id, bool(unattended))
            slots.set_guards(cgroup_id, guards)
            continue
        try:
            with loader.cgroup_by_id(mount, cgroup_id) as fd:
                number = slots.take(cgroup_id, policies, contained)
                slots.set_unattended(cgroup_id, bool(unattended))
                slots.set_grace(cgroup_id, grace_ms)
                slots.set_hold(cgroup_id, *loader.read_hold(old, slot))
                slots.set_guards(cgroup_id, guards)
                attach.attach_cgroup(new.generation, new.maps["cgroup_slot"], fd, cgroup_id, number)
                slots.seed(cgroup_id, Path(f"/proc/self/fd/{fd}").readlink())
        except Gone:
            slots.free(cgroup_id)


def _retire(old: pins.Generation, new: loader.Loaded, mount: Path, pin_dir: Path) -> list[Lost]:
    """Take an old generation away; first what judges, then, once its last sever is carried over, what contains."""
    now = time.monotonic_ns()
    lost: list[Lost] = []
    before = _open(old)
    try:
        old.remove_links()
        loader.copy_known(before, new)
        _merge(before, new, mount)
        holds.carry_over(before, new)
        hostcut.carry_over(before, new)
        at_devices = frames.Frames(new.generation.programs, pin_dir)
        at_devices.upgrade()
        hostcut.HostCut(new, at_devices, pin_dir).upgrade()
        lost += Losses(before).take({slot: cgroup for cgroup, slot in before.slots().items()})
        for name, fd in before.rings.items():
            ring = Ring(name, fd)
            unread = ring.skip()
            ring.close()
            if unread:
                lost.append(Lost(now, 0, "upgrade", unread))
    finally:
        before.close()
    old.remove()
    log.info("took the place of the older data plane %s", old.path)
    return lost
