"""What watching costs a workload's own traffic, over loopback, where there is no wire to hide the cost behind."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial

from benchmarks import scene
from benchmarks.harness import Row, Variant, in_turns, ratio, run_in

ROUNDS = 9


def rows(quick: bool) -> Iterator[Row]:
    rounds = 3 if quick else ROUNDS
    variants = [Variant("nothing", scene.plain_cgroup), Variant("watched", scene.watched)]

    speed = in_turns(variants, partial(run_in, name="loopback", args=("stream", "1000" if quick else "4000")), rounds)
    share = ratio(speed, "watched", "nothing")
    base = statistics.median(speed["nothing"])
    yield Row("network", "throughput, watched", f"×{share:.3f}", "≥ ×0.97", share >= 0.97, f"of {base:,.0f} MB/s")

    for what, name in (("request", "request and answer of 64 bytes, watched"), ("connect", "connect + close, watched")):
        count = "5000" if quick else "20000"
        results = in_turns(variants, partial(run_in, name="loopback", args=(what, count)), rounds)
        times = ratio(results, "watched", "nothing")
        base = statistics.median(results["nothing"])
        yield Row("network", name, f"×{times:.3f}", note=f"{(times - 1) * base / 1000:+.2f} µs on {base / 1000:.1f} µs")
    yield from wire(quick)


WIRE_LATENCY_NS = 2000.0
WIRE = (
    ("stream", "throughput"),
    ("request", "request and answer of 64 bytes"),
    ("first", "first request and answer of a connection"),
)


def wire(quick: bool) -> Iterator[Row]:
    """What the rules that look at the wire cost: the shipped policies beside the same without them. Both ends are watched."""
    variants = [Variant("without", scene.watched_without_wire), Variant("with", scene.watched)]
    for what, name in WIRE:
        count = {"stream": "1000" if quick else "4000", "request": "20000", "first": "3000" if quick else "10000"}[what]
        results = in_turns(variants, partial(run_in, name="loopback", args=(what, count)), 3 if quick else ROUNDS)
        share = ratio(results, "with", "without")
        base = statistics.median(results["without"])
        if what == "stream":
            yield Row(
                "network", f"{name}, wire inspected", f"×{share:.3f}", "≥ ×0.97", share >= 0.97, f"of {base:,.0f} MB/s"
            )
            continue
        more = (share - 1) * base
        yield Row(
            "network", f"{name}, wire inspected", f"{more / 1000:+.2f} µs", "≤ +2 µs", more <= WIRE_LATENCY_NS,
            f"×{share:.3f} on {base / 1000:.1f} µs",
        )  # fmt: skip
