"""What came of one case, and whether that is good. Pure: what is judged here is what the runner has seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEVERING = ("sever", "freeze", "terminate")


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, as far as it is scored."""

    rule: str
    level: str
    evidence: str  # of the rule: name, arguments, wire, behaviour, "" = not said
    act: str
    responses: tuple[str, ...]  # of the rule, but for alert and capture
    after_s: float  # from the start of the workload to the event
    verdict_us: float  # from the event to the verdict
    summary: str = ""

    @property
    def acts(self) -> bool:
        return bool(self.responses)


@dataclass(frozen=True, slots=True)
class Outcome:
    case: str
    malicious: bool
    kind: str
    contained: str = "free"  # the most that was observed: free, severed, severed+frozen, …
    status: int | None = None  # as Popen.returncode; None = it still ran
    goal_reached: bool = False  # a malicious case has attained what it is after
    bytes_left: int = 0  # payload at the far side, without what went to the name server
    packets_left: int = 0
    bytes_after_cut: int = 0  # of these, later than the receipt for the cut
    found: tuple[Found, ...] = ()
    cpu_seconds: float = 0.0
    output_missing: tuple[str, ...] = ()
    output: str = ""
    questions: tuple[str, ...] = ()  # names that were asked for
    lost_frames: int = 0  # that the counter itself has missed
    error: str = ""  # the harness could not run it
    seconds: float = 0.0  # that the case took
    mode: str = "enforce"

    @property
    def stopped(self) -> str:
        """How a malicious case was stopped: severed+frozen, severed, denied, killed; "" = it was not.

        Denied and killed are believed only where nothing left and the goal was not reached: a rule that says ``deny`` and
        comes a packet late has not denied.
        """
        if self.error:
            return ""
        if self.contained != "free":
            return self.contained
        if self.goal_reached or self.bytes_left:
            return ""
        asked = {r for f in self.found for r in f.responses}
        return next((word for word, r in (("denied", "deny"), ("killed", "kill_process")) if r in asked), "")

    def good(self, *, status: int = 0) -> bool:
        """Contained, or left alone and working."""
        if self.error:
            return False
        if self.malicious:
            return bool(self.stopped) and not self.bytes_after_cut
        return not self.harm(status=status)

    def harm(self, *, status: int = 0) -> str:
        """What was done to an innocent: severed, killed, denied; or broken, when its work did not succeed; "" = nothing."""
        asked = {r for f in self.found for r in f.responses}
        if self.contained != "free" or asked & set(SEVERING):
            return "severed"
        if "kill_process" in asked:
            return "killed"
        if "deny" in asked:
            return "denied"
        return "broken" if self.status != status or self.output_missing else ""

    @property
    def verdict_s(self) -> float | None:
        """From the start of the workload to the first verdict that acted; None = none did."""
        acting = [f.after_s + f.verdict_us / 1e6 for f in self.found if f.acts]
        return min(acting, default=None)

    @property
    def caught_by(self) -> tuple[str, ...]:
        """The evidence of the findings that acted, first one first."""
        acting = sorted((f for f in self.found if f.acts), key=lambda f: f.after_s)
        return tuple(dict.fromkeys(f.evidence or "unsaid" for f in acting))

    def by_evidence(self, kind: str) -> str:
        """What this kind of evidence alone came to: ``acts``, ``alerts`` or ""."""
        mine = [f for f in self.found if f.evidence == kind]
        return "acts" if any(f.acts for f in mine) else "alerts" if mine else ""

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Inverse of ``as_json``; keys of an older version are left out. Raises TypeError when one is missing."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
        values["found"] = tuple(Found(**{**f, "responses": tuple(f["responses"])}) for f in data["found"])
        return cls(**values)
