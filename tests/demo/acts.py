"""What the rogue workload does, one act a workload, and what the innocent one does meanwhile."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.rig.build import PROGRAMS, program
from tests.rig.netns import FarSide
from tests.rig.pool import Pool
from tests.rig.sshd import Sshd


@dataclass(frozen=True, slots=True)
class Act:
    name: str  # of the workload
    title: str  # what it does, in one line
    argv: tuple[str, ...]
    rules: tuple[str, ...]  # one of which must find it
    ports: frozenset[int]  # at the far side, that only this act speaks to
    seconds: float  # within which it must be contained


def rogue_acts(directory: Path, far: FarSide, pools: tuple[Pool, Pool], sshd: Sshd) -> tuple[Act, ...]:
    """Each act is started by a script that lives on, so that there is something left to freeze."""
    named = shutil.copy(program("burner"), directory / "xmrig")
    renamed = shutil.copy(program("burner"), directory / "data-sync")
    quiet = Path(shutil.copy(program("burner"), directory / "indexer"))
    with quiet.open("ab") as file:
        file.write(b"\n")  # else it is known by its content as soon as the other one is: an incident's continuation

    def then_sleep(name: str, *command: str) -> tuple[str, ...]:
        script = directory / f"{name}.sh"
        script.write_text(f"#!/bin/sh\n{shlex.join(command)}\nsleep 100\n")
        script.chmod(0o755)
        return (str(script),)

    probe = "import socket, sys, time\n" + "\n".join(
        (
            "for port in range(8000, 8400):",
            "    s = socket.socket(); s.settimeout(0.02); s.connect_ex((sys.argv[1], port)); s.close()",
        )
    )
    return (
        Act(
            "quiet-miner",
            "a renamed miner that keeps off the network: it only burns hashes",
            then_sleep("job", str(quiet), "150"),
            (
                "hashing-alone",
                "shared-hashing-alone",
            ),  # the process, or all of the workload: whichever is over its limit first
            frozenset(),
            140,  # some 30 s on a quiet machine; it must keep half a CPU busy, which a crowded one may not give it at first
        ),
        Act(
            "renamed-miner",
            "the same miner renamed: Stratum to the pool",
            then_sleep("sync", str(renamed), "100", pools[1].address[0], str(pools[1].address[1]), "2"),
            ("stratum-handshake",),
            frozenset({pools[1].address[1]}),
            10,
        ),
        Act(
            "miner",
            "a miner under its own name",
            then_sleep("work", str(named), "100", pools[0].address[0], str(pools[0].address[1])),
            ("miner-binary",),
            frozenset({pools[0].address[1]}),
            10,
        ),
        Act(
            "tunnel",
            "ssh -fNR: a reverse tunnel to the outside",
            then_sleep("backup", *sshd.client("-fNR9000:localhost:22")),
            ("reverse-ssh-tunnel",),
            frozenset({sshd.port, 9000}),
            10,
        ),
        Act(
            "probe",
            "a probe of the internal network, port by port",
            then_sleep("check", "/usr/bin/python3", "-c", probe, far.far4),
            ("internal-scan",),
            frozenset(range(8000, 8400)),
            20,
        ),
    )


def innocent_work(directory: Path, sshd: Sshd) -> tuple[str, ...]:
    """A compile, an ``ssh host ls -R`` and a checksum, over and over for some twenty seconds; fails when one of them does."""
    source = PROGRAMS / "burner.c"
    big = directory / "dataset.bin"
    with big.open("wb") as out:
        out.truncate(400 << 20)
    ls = " ".join(sshd.client(command=("ls", "-R", "/usr/share/doc")))
    script = f"""set -eu
end=$(($(date +%s) + 25))
while [ "$(date +%s)" -lt $end ]; do
  gcc -O2 -pthread -o '{directory}/innocent' '{source}'
  {ls} >/dev/null
  sha256sum '{big}' >/dev/null
done
"""
    return ("/bin/bash", "-c", script)
