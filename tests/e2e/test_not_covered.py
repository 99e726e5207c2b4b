"""What a cut does not reach on this kernel stands in its receipt, and so in the incident, by the names that `doctor` has."""

from __future__ import annotations

from killswitch.commands import Step
from tests.e2e.conftest import Daemon


def test_the_receipt_names_it(shared_daemon: Daemon) -> None:
    d = shared_daemon
    d.watched("named")
    open_here = {
        c.name for c in d.client.capabilities() if not c.available and c.promise.startswith("severed is severed")
    }
    assert "no_accomplices" in open_here

    def told() -> set[str]:
        """The daemon finds out beside everything else: the first receipts of its life may be without."""
        [severed] = [r for r in d.client.sever("named", "what is not covered").receipts if r.step is Step.SEVER]
        return set(str(severed.proof.get("not_covered", "")).split(",")) - {""}

    d.wait_for("it is told", lambda: told() == open_here)
    w = d.workload("named")
    assert w
    last = [r for r in d.client.incident(w.incident).receipts if r.step is Step.SEVER][-1]
    assert set(str(last.proof["not_covered"]).split(",")) == open_here
