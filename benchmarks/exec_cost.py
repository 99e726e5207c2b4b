"""What watching costs a program that starts programs, beside auditd and bpftrace doing no more than seeing them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import peers, scene
from benchmarks.harness import Row, Variant, in_turns, ratio, run_in
from tests.rig.build import program

# What a build, a test suite or a shell script starts: a small dynamically linked program.
USUAL = "/bin/true"
ROUNDS, COUNT = 7, 1500


def rows(quick: bool) -> Iterator[Row]:
    rounds, count = (3, 500) if quick else (ROUNDS, COUNT)
    usable, missing = [], []
    for name, start in (("auditd", peers.auditd), ("bpftrace", peers.bpftrace)):
        try:
            with start():
                usable.append(Variant(name, _in_plain_cgroup(start)))
        except peers.PeerMissing as error:
            missing.append((name, str(error)))
    variants = [
        Variant("nothing", scene.plain_cgroup),
        Variant("unwatched", scene.unwatched),
        Variant("watched", scene.watched),
        *usable,
    ]
    for what, path in (("exec of /bin/true", USUAL), ("exec of the smallest program", str(program("nothing")))):
        results = in_turns(variants, partial(run_in, name="spawn", args=(str(count), path)), rounds)
        base = statistics.median(results["nothing"])
        promised = path == USUAL
        yield Row("exec", f"{what}, nothing installed", f"{base / 1000:.1f} µs")
        for ours, target in (("unwatched", 1.03), ("watched", 1.15)):
            times = ratio(results, ours, "nothing")
            yield Row(
                "exec",
                f"{what}, {ours}",
                f"×{times:.3f}",
                f"≤ ×{target}" if promised else "",
                times <= target if promised else None,
                f"{(times - 1) * base / 1000:+.1f} µs each",
            )
        for peer in usable:
            yield Row("exec", f"{what}, {peer.name}", f"×{ratio(results, peer.name, 'nothing'):.2f}", note="peer")
    for name, why in missing:
        yield Row("exec", f"exec, {name}", "—", note=why)


def _in_plain_cgroup(
    peer: Callable[[], AbstractContextManager[None]],
) -> Callable[[], AbstractContextManager[Path | None]]:
    @contextmanager
    def around() -> Iterator[Path | None]:
        with scene.plain_cgroup() as cgroup, peer():
            yield cgroup

    return around
