"""The watched workloads, as the daemon knows them: names, paths, policies, what is wanted of them. No system call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from killswitch.commands import FREE, Containment
from killswitch.errors import TargetError


@dataclass(slots=True)
class Workload:
    id: int  # of its cgroup
    name: str
    cgroup: str  # path below the cgroup v2 root
    policies: tuple[int, ...]  # indices into the policies in force
    explicit: bool  # an operator asked for it: it stays watched though no policy's glob matches
    since_unix: float
    desired: Containment = FREE
    incident: str = ""  # open incident
    lost: int = 0  # events
    events: int = 0  # that came
    made: bool = False  # the daemon itself made its cgroup, to hold the place
    awaited: bool = False  # its cgroup is a place that is held for what may come back: nothing has run in it yet

    @property
    def due(self) -> Containment:
        """What is wanted of it by now. An empty place is not frozen: a newer systemd starts a service right inside its cgroup,
        and would wait for ever for what is frozen before its first instruction, and with it the whole host."""
        return replace(self.desired, frozen=False) if self.awaited else self.desired

    @property
    def mask(self) -> int:
        return sum(1 << p for p in self.policies)


@dataclass(frozen=True, slots=True)
class Absent:
    """A contained workload whose cgroup is gone. One that appears at its path is contained again, until released."""

    name: str
    cgroup: str
    desired: Containment
    incident: str
    explicit: bool


class Workloads:
    def __init__(self) -> None:
        self._by_id: dict[int, Workload] = {}
        self._by_name: dict[str, int] = {}
        self._by_path: dict[str, int] = {}
        self.absent: dict[str, Absent] = {}  # by cgroup path

    def __iter__(self) -> Iterator[Workload]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, workload: int) -> bool:
        return workload in self._by_id

    def get(self, workload: int) -> Workload | None:
        return self._by_id.get(workload)

    def name(self, workload: int) -> str:
        known = self._by_id.get(workload)
        return known.name if known else ""

    def at(self, cgroup: str) -> Workload | None:
        """The workload whose cgroup is exactly this path."""
        found = self._by_path.get(cgroup)
        return None if found is None else self._by_id[found]

    def holding(self, cgroup: str) -> Workload | None:
        """The innermost workload that this cgroup is, or lies in."""
        while cgroup and cgroup != "/":
            if found := self.at(cgroup):
                return found
            cgroup = cgroup.rpartition("/")[0]
        return None

    def add(
        self, workload: int, cgroup: str, policies: tuple[int, ...], *, name: str = "", explicit: bool = False
    ) -> Workload:
        """Add a workload, or, where its cgroup is known already, bring what is known up to date."""
        if old := self._by_id.get(workload):
            old.policies = policies
            old.explicit = old.explicit or explicit
            return old
        if stale := self.at(cgroup):  # the cgroup was removed and made anew: another id, another workload
            self.remove(stale.id)
        name = self._free_name(name or cgroup.rpartition("/")[2], cgroup)
        added = Workload(workload, name, cgroup, policies, explicit, time.time())
        self._by_id[workload] = added
        self._by_name[added.name] = workload
        self._by_path[cgroup] = workload
        return added

    def remove(self, workload: int) -> Workload | None:
        gone = self._by_id.pop(workload, None)
        if gone:
            self._by_name.pop(gone.name, None)
            self._by_path.pop(gone.cgroup, None)
        return gone

    def rename(self, w: Workload, name: str) -> None:
        """``check_name`` first."""
        del self._by_name[w.name]
        w.name = name
        self._by_name[name] = w.id

    def named(self, name: str) -> Workload | None:
        found = self._by_name.get(name)
        return None if found is None else self._by_id[found]

    def check_name(self, name: str, cgroup: str) -> None:
        """Raises TargetError when another workload has this name, or when it would be taken for something else."""
        taken = self.named(name)
        if taken and taken.cgroup != cgroup:
            raise TargetError(f"name {name!r}: the workload at {taken.cgroup} has it already; choose another")
        ambiguous = name.isdigit() or name == "host" or name.startswith("pid:") or "/" in name
        if not name or ambiguous or not name.isprintable():
            raise TargetError(f"name {name!r}: would be taken for another kind of target; use letters, digits and '-'")

    def suggest(self, word: str) -> str:
        import difflib

        names = [*self._by_name, *(a.name for a in self.absent.values())]
        if close := difflib.get_close_matches(word, names, n=1):
            return f"did you mean {close[0]}?"
        return f"watched are {', '.join(sorted(names)[:12])}" if names else "nothing is watched"

    def _free_name(self, wanted: str, cgroup: str) -> str:
        """``wanted``, or, where that is taken or ambiguous, a name made of the whole path."""
        path = "".join(c if c.isprintable() else "?" for c in cgroup.strip("/").replace("/", ":"))
        for name in (wanted, path, f"cgroup:{path}", *(f"cgroup:{path}~{n}" for n in range(2, len(self) + 3))):
            try:
                self.check_name(name, "")
            except TargetError:
                continue
            return name
        raise AssertionError("more names are taken than there are workloads")
