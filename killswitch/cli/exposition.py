"""What the daemon tells of itself, in Prometheus' text exposition format (version 0.0.4). Pure: no clock, no files.

Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from killswitch.cli.escape import wellformed
from killswitch.commands import Containment

if TYPE_CHECKING:
    from killswitch.control.service import Status, WorkloadInfo

Sample = tuple[dict[str, str], float]

UP = "killswitch_up"


def family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    """One metric with its samples, "" when there is none. ``kind``: gauge or counter."""
    lines = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join((f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines, "")) if lines else ""


def down() -> str:
    """What there is to tell when the daemon does not answer."""
    return family(UP, "gauge", "Whether the daemon answered.", [({}, 0)])


def of(status: Status, workloads: Sequence[WorkloadInfo]) -> str:
    """All of it. Times are seconds since 1970, 0 = never."""
    p = status.proof

    def one(name: str, text: str, value: float, kind: str = "gauge") -> str:
        return family(f"killswitch_{name}", kind, text, [({}, value)])

    def each(name: str, text: str, value: str, scale: float = 1, kind: str = "counter") -> str:
        samples = [(_who(w), getattr(w, value) * scale) for w in workloads if w.id and getattr(w, value) >= 0]
        return family(f"killswitch_workload_{name}", kind, text, samples)

    def contained(word: str, field: str) -> str:
        text = f"Whether the workload is {word}: state=observed as the kernel says, state=desired as was ordered."
        samples = [
            ({**_who(w), "state": state}, float(getattr(how, field)))
            for w in workloads
            for state, how in (("observed", w.observed), ("desired", w.desired))
            if isinstance(how, Containment)
        ]
        return family(f"killswitch_workload_{word}", "gauge", text, samples)

    return "".join(
        (
            family(UP, "gauge", "Whether the daemon answered.", [({}, 1)]),
            family("killswitch_build_info", "gauge", "The release.", [({"version": status.version}, 1)]),
            one("start_time_seconds", "When the daemon started.", status.started_unix),
            one("resident_memory_bytes", "Memory of the daemon.", status.resident_bytes),
            one(
                "proof_stands",
                "Whether the last self-test passed and is not too old: alert when this is not 1.",
                p.stands,
            ),
            one("proof_passed", "Whether the last self-test passed.", p.ok),
            one("proof_time_seconds", "When the last self-test was, 0 = never.", p.at_unix),
            one("proof_passed_time_seconds", "When the last self-test that passed was, 0 = never.", p.good_unix),
            one("proof_interval_seconds", "Time between two self-tests, 0 = only when asked.", p.every_s),
            family(
                "killswitch_part_healthy",
                "gauge",
                "Whether this part of the daemon works.",
                [({"part": h.part}, float(h.ok)) for h in status.health],
            ),
            one("workloads", "Watched workloads.", status.workloads),
            one("workloads_contained", "Of these, contained.", status.contained),
            one("incidents_open", "Incidents that are open.", status.open_incidents),
            one("events_total", "Events handled since the daemon started.", status.events, "counter"),
            one(
                "events_repeated_total",
                "Events that only said the same again, and were told once.",
                status.repeated,
                "counter",
            ),
            family(
                "killswitch_events_lost_total",
                "counter",
                "Events that were lost, by reason.",
                [({"reason": reason}, n) for reason, n in sorted(status.lost.items())] or [({"reason": "any"}, 0)],
            ),
            contained("severed", "severed"),
            contained("frozen", "frozen"),
            each("processes", "Its processes.", "processes", kind="gauge"),
            each("cpu_seconds_total", "CPU time that it has used.", "cpu_ns", 1e-9),
            each(
                "hashing_ratio",
                "How much like hashing its CPU time of the last half minute was.",
                "hashing",
                kind="gauge",
            ),
            each("sent_packets_total", "Packets that it sent.", "tx_packets"),
            each("received_packets_total", "Packets that it received.", "rx_packets"),
            each("dropped_packets_total", "Packets that were dropped.", "dropped_packets"),
            each("held_packets_total", "Packets that were held until their program was judged.", "held_packets"),
            each("events_lost_total", "Events of it that were lost.", "lost_events"),
        )
    )


def _who(w: WorkloadInfo) -> dict[str, str]:
    return {"workload": w.name, "cgroup": w.cgroup}


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items()) + "}" if labels else ""


def _escaped(value: str) -> str:
    """A workload chooses its name: it must not be able to add a line, or a label, of its own."""
    return wellformed(value).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
