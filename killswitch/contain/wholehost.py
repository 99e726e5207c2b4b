"""Cutting the whole host off: which way in is kept, the steps, and their proof. The data plane does it (``kernel.hostcut``)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from killswitch import errors
from killswitch.commands import Outcome, Receipt, Step
from killswitch.contain.model import Proof, StepFailed, Stopwatch
from killswitch.contain.protected import Protected
from killswitch.errors import KernelError
from killswitch.hostallow import DHCP, Allowed, in_port
from killswitch.kernel import procfs
from killswitch.kernel.hostcut import HostCut, Place, Seen
from killswitch.kernel.sockdiag import Diag

T = TypeVar("T")
HOST_ID = 1  # of the root of a cgroup tree, which can be no workload
_LISTEN, _ESTABLISHED = 10, 1
_PRIVILEGED = 1024


class _Plane(Protocol):
    host: HostCut


class HostSwitch:
    """One event loop uses it. ``place`` None: switched off by configuration."""

    def __init__(self, plane: _Plane, place: Place | None, allowed: Sequence[Allowed], protected: Protected) -> None:
        self._plane, self._place, self._allowed, self._protected = plane, place, tuple(allowed), protected
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "ks-host")
        self._ports: frozenset[int] = (
            frozenset()
        )  # of the operators' sshd, ever found: one that restarts finds its way kept

    def place(self) -> Place:
        """Raises NotSupported when it is switched off."""
        if self._place is None:
            hint = "switched off by configuration (host_cgroup: none): kill workloads by their names"
            raise errors.NotSupported("cut the whole host off", errno.EOPNOTSUPP, hint)
        return self._place

    @property
    def is_cut(self) -> bool:
        """As the data plane has it."""
        return self._plane.host.is_cut

    async def check(self, *, force: bool) -> None:
        """Raises NotSupported when it is switched off, KernelError when there is no such namespace, Protected when nobody
        could get in any more to take it back."""
        place = self.place()
        await self._call(lambda: self._look(place, older_than_s=0.0))
        if not force and not any(rule.lets_in for rule in self._way_in()):
            raise errors.Protected(
                "host: no way in could be kept: no sshd of the operators listens in the host's network namespace, and host_allow "
                "lets nobody in; add a line such as 'in tcp 22 from 198.51.100.0/24' to host_allow, or use --force, after which "
                "only somebody at the machine itself can take it back"
            )

    async def cut(self) -> Receipt:
        """Cut it off, and see that it is: by reading back, and by asking the programs about frames that are never sent."""
        return await self._step(Step.SEVER, self._cut)

    async def release(self) -> Receipt:
        return await self._step(Step.RECONNECT, self._release)

    async def repair(self) -> Receipt | None:
        """Bring what is in force up to date (devices that are new, an sshd at another port); a receipt when something of it
        had been missing that was there before."""
        place = self.place()
        try:
            before = await self._call(lambda: self._plane.host.seen(place))
            known = self._ports
            await self._call(lambda: self._look(place))
            if before.whole and self._ports == known and before.rules == len(self._rules()):
                return None
        except KernelError as e:
            return Stopwatch(Step.SEVER, HOST_ID).receipt(Outcome.FAILED, {}, str(e))
        receipt = await self.cut()
        return receipt if before.missing or receipt.outcome is not Outcome.DONE else None

    async def seen(self) -> Seen:
        """Raises KernelError."""
        place = self.place()
        return await self._call(lambda: self._plane.host.seen(place))

    def words(self) -> tuple[str, ...]:
        """What goes through, for people."""
        return tuple(dict.fromkeys(rule.text for rule in self._rules()))

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    # --- the work, in a thread ---

    def _cut(self) -> Proof:
        place = self.place()
        self._look(place)
        host = self._plane.host
        # With nobody to be let in that we know of, one who was let in before stays so.
        keep = host.is_cut and not any(rule.lets_in for rule in self._way_in())
        seen = host.cut(place, None if keep else self._rules())
        proof = _proof(seen)
        if not seen.whole:
            raise StepFailed(f"not guarded: {', '.join(seen.missing)}", proof)
        try:
            answers = host.answers(place, sorted(self._ports))
        except KernelError as e:
            return {**proof, "tried": f"no: {e}"}
        for what, passes in answers.items():
            proof[f"tried_{what}"] = "passes" if passes else "dropped"
        if wrong := [w for w, passes in answers.items() if passes == (w == "nowhere")]:
            raise StepFailed(f"the programs answer otherwise than they must for: {', '.join(wrong)}", proof)
        if words := self.words():
            proof["allowed"] = "; ".join(words)
        return proof

    def _release(self) -> Proof:
        return _proof(self._plane.host.release(self.place()))

    def _rules(self) -> list[Allowed]:
        return [*self._way_in(), *DHCP]

    def _way_in(self) -> list[Allowed]:
        return [*(in_port(port, f"the operators' sshd, tcp {port}") for port in sorted(self._ports)), *self._allowed]

    def _look(self, place: Place, *, older_than_s: float = 1.0) -> None:
        """Find the ports of the operators' sshd in the host's namespace."""
        self._protected.refresh(older_than_s=older_than_s)
        with place.opened() as (_, fd), Diag(fd) as diag:
            tcp = {s.inode: s for s in diag.dump() if s.transport == "tcp" and s.inode}
        listening: set[int] = set()
        sessions: set[int] = set()
        for pid in self._protected.operators():
            with contextlib.suppress(KernelError):
                held = [tcp[inode] for inode in procfs.socket_inodes(pid) if inode in tcp]
                established = {s.source_port for s in held if s.state == _ESTABLISHED}
                # What a session listens on is what somebody has it forward: no way in of the operators.
                if not established:
                    listening |= {s.source_port for s in held if s.state == _LISTEN}
                sessions |= {port for port in established if port < _PRIVILEGED}
        self._ports |= listening | sessions

    async def _step(self, step: Step, work: Callable[[], Proof]) -> Receipt:
        watch = Stopwatch(step, HOST_ID)
        try:
            proof = await self._call(work)
        except StepFailed as e:
            return watch.receipt(Outcome.FAILED, e.proof, str(e))
        except (KernelError, OSError) as e:
            return watch.receipt(Outcome.FAILED, {}, str(e))
        return watch.receipt(Outcome.DONE, proof)

    async def _call(self, work: Callable[[], T]) -> T:
        async with self._lock:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _proof(seen: Seen) -> Proof:
    return {
        "containment": "severed" if seen.cut else "free",
        "devices": len(seen.devices),
        "rules": seen.rules,
        "tx_dropped": seen.tx_dropped,
        "rx_dropped": seen.rx_dropped,
    }
