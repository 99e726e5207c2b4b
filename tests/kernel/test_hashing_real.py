"""``cpu.hashing`` on real programs: sampled by the real data plane, read from their real memory. Asserts scores only."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from killswitch.commands import Command, Contain, ReadCode, RecordFinding
from killswitch.detect.hashing import Score
from killswitch.engine import Engine
from killswitch.errors import Gone
from killswitch.events import WorkloadAdded
from killswitch.kernel import codereader
from killswitch.kernel.dataplane import DataPlane
from killswitch.policy.compile import compile_policies
from killswitch.policy.load import load_text
from tests.kernel.loads import opened_plane, start
from tests.rig.build import program

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    # All twenty loads run for the first test; on a host whose CPUs others keep busy each may need its whole patience.
    pytest.mark.timeout(900),
]

ENOUGH = 80  # samples: about the 0.8 CPU-seconds that the engine waits for
PATIENCE_S = 60.0
AT_ONCE = os.cpu_count() or 1

# crypt(3) of made-up words that are not found in the seconds that these run
DES = (
    "vvX6DePEZ4oNI Sv.u4/qwgrQqI jAaeXS6asOO7. Yc3YzQH9o4Mok RB5h72hRd0jeE 0M7d.vzw5igxQ Vf5QOZQ7j2zWk "
    "6Du4mzXbxoUiQ 6XmUpmNitjlhk 2or.hyYLIvA7I nvXts1KwbWtmU sYgCWIDBnEn4w Zfb8RJvSrB8Sw ameBVS4x2Oxxw "
    "MnqbUu2PBtqA2 mYzJRyLK0gU5k cCnefzWGaM2iw KY/3RUmf6wHWA lnS9Rts9f8w3k ER7jR3vB5rjN6 fWWSA5IIXxP7g "
    "uigcgWv9m69aU T2JbK5Og9x/U. DxDR93LgdbqDQ "
)
BCRYPT = (
    "$2b$05$abcdefghijklmnopqrstee5aaQtdC45WHxNfgCcrQYMl.ym1mTEDa "
    "$2b$05$abcdefghijklmnopqrstuue306LQGIA7rHy3Yqpl9zmjbEbX0Fcl2 "
    "$2b$05$abcdefghijklmnopqrstOOkJ8h/8Rbfquqack8sLuA1g3iXT4Q/aG "
)

TEXT = "while :; do cat /usr/include/*.h; done"
# One thread for john: OpenMP threads that wait for each other spin, and on a busy machine that is most of what they do.
HASHING = {
    "sha256 by the CPU's instructions": "exec openssl speed -seconds 60 -bytes 64 -evp sha256",
    "sha256 without them": "OPENSSL_ia32cap=~0:~0x20000000 exec openssl speed -seconds 60 -bytes 64 -evp sha256",
    "sha3": "exec openssl speed -seconds 60 -bytes 64 -evp sha3-256",
    "blake2b": "exec openssl speed -seconds 60 -bytes 8192 -evp blake2b512",
    "aes-gcm": "exec openssl speed -seconds 60 -bytes 8192 -evp aes-128-gcm",
    "scrypt": "exec python3 -c \"import hashlib\nwhile True: hashlib.scrypt(b'a', salt=b'b', n=16384, r=8, p=1)\"",
    "argon2": "printf pw | exec argon2 saltsalt -id -t 1000000 -m 12 -p 1",
    "descrypt": "OMP_NUM_THREADS=1 HOME={home} exec john --incremental --format=descrypt --session={home}/des {home}/des",
    "bcrypt": "OMP_NUM_THREADS=1 HOME={home} exec john --incremental --format=bcrypt --session={home}/bcrypt {home}/bcrypt",
    "sha256d in plain C": "exec {burner} 60",
}
ORDINARY = {
    "xz": f"({TEXT}) | xz -9 -c",
    "gzip": f"({TEXT}) | gzip -9 -c",
    "zstd": f"({TEXT}) | zstd -19 -q -c",
    "python": 'exec python3 -c "x = 0\nwhile True: x = (x * 31 + 7) % 1000003"',
    "a compiler": "exec gcc -O3 -w -S -x c {source} -o /dev/null",
    "matrix product": "exec stress-ng --cpu 1 --cpu-method matrixprod -t 60 -q",
    "crc16": "exec stress-ng --cpu 1 --cpu-method crc16 -t 60 -q",
    "fft": "exec stress-ng --cpu 1 --cpu-method fft -t 60 -q",
    "prime": "exec stress-ng --cpu 1 --cpu-method prime -t 60 -q",
    "a checksum of much data": "cat /dev/zero | sha256sum",
}


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    with opened_plane("hashing") as opened:
        yield opened


def run_batch(plane: DataPlane, batch: dict[str, str]) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    with ExitStack() as stack:
        # john lowers its own priority by twenty
        loads = {load.id: load for load in (start(stack, plane, n, c, nice=-20) for n, c in batch.items())}
        plane.cpu_window()
        deadline = time.monotonic() + PATIENCE_S
        while len(scores) < len(batch) and time.monotonic() < deadline:
            time.sleep(0.4)
            for event in plane.cpu_window():
                loads[event.workload].note(event)
            for load in loads.values():
                if load.name not in scores and load.busiest[1] >= ENOUGH:
                    try:
                        scores[load.name] = load.judge()
                    except Gone:
                        load.samples.clear()  # it has just ended: the next process, then
    return scores


@pytest.fixture(scope="module")
def scores(plane: DataPlane, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    source = tmp_path_factory.mktemp("source") / "big.c"
    body = "int s={0};for(int k=0;k<n;k++){{s+=a[k]*{1};if(s&{2})s^=a[(k*{3})%n];}}return s;"
    functions = (f"int f{i}(int*a,int n){{{body.format(i, i % 7 + 2, i % 5 + 1, i % 11)}}}" for i in range(8000))
    source.write_text("\n".join(functions))
    for name, hashes in (("des", DES), ("bcrypt", BCRYPT)):
        (source.parent / name).write_text("".join(f"user{i}:{h}\n" for i, h in enumerate(hashes.split())))
    words = {"burner": program("burner"), "source": source, "home": source.parent}
    own = f"export TMPDIR='{source.parent}'; "  # they are killed: what they have in /tmp then would stay there
    commands = {name: own + command.format(**words) for name, command in {**HASHING, **ORDINARY}.items()}
    usable = {n: c for n, c in commands.items() if all(shutil.which(tool) for tool in tools(c))}
    found: dict[str, Score] = {}
    names = list(usable)
    for i in range(0, len(names), AT_ONCE):
        found |= run_batch(plane, {n: usable[n] for n in names[i : i + AT_ONCE]})
    return found


def tools(command: str) -> set[str]:
    return {t for t in ("openssl", "argon2", "john", "xz", "zstd", "stress-ng", "gcc") if f"{t} " in command}


def score_of(scores: dict[str, Score], name: str, command: str) -> Score:
    missing = [tool for tool in tools(command) if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    assert name in scores, f"{name!r} did not keep a CPU busy: {command}"
    return scores[name]


@pytest.mark.parametrize("name", HASHING)
def test_hashing_scores_high(scores: dict[str, Score], name: str) -> None:
    found = score_of(scores, name, HASHING[name])
    assert found.value >= 0.7, found.told


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_work_scores_low(scores: dict[str, Score], name: str) -> None:
    found = score_of(scores, name, ORDINARY[name])
    assert found.value < 0.5, found.told


POLICY = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {name: real, version: 1}
workloads:
  - cgroup: /ks-test-*
mode: enforce
rules:
  - id: hashing
    title: Sustained hashing load
    level: high
    on: cpu
    match:
      busy: {cpu.cores|gte: 0.3}
      hashing: {cpu.hashing|gte: 0.7}
    condition: busy and hashing
    for: 1s
    response: [sever, freeze, capture]
"""


def test_the_engine_finds_the_burner_and_not_the_compressor(plane: DataPlane) -> None:
    """All of the way: samples, the engine's request, the process's memory, the score, ``for:``, the order to contain."""
    compiled = compile_policies([load_text(POLICY, "real.yaml")])
    engine = Engine(compiled)
    out: list[Command] = []
    with ExitStack() as stack:
        burner = start(stack, plane, "engine-burner", f"exec {program('burner')} 60", nice=-19)
        gzip = start(stack, plane, "engine-gzip", f"({TEXT}) | gzip -9 -c")
        for load in (burner, gzip):
            cgroup = f"/{load.cgroup.name}"
            engine.handle(WorkloadAdded(0, load.id, load.name, cgroup, compiled.policies_for(cgroup)))
        plane.cpu_window()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not any(isinstance(c, Contain) for c in out):
            time.sleep(0.5)
            for event in plane.cpu_window():
                for command in engine.handle(event):
                    out.append(command)
                    if isinstance(command, ReadCode):
                        with suppress(Gone):
                            asked = (
                                command.workload,
                                command.pid,
                                command.start_ticks,
                                command.hot,
                                command.code,
                                command.data,
                            )
                            out += engine.handle(codereader.read_code(*asked))
    contained = [c for c in out if isinstance(c, Contain)]
    assert [c.workload for c in contained] == [burner.id]
    assert contained[0].hot, "the evidence is to name the hot functions"
    assert {c.finding.workload for c in out if isinstance(c, RecordFinding)} == {burner.id}
