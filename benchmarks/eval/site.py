"""One place where cases run, one after another: a network of its own whose far side is the rest of the world.

Two namespaces, joined by a veth pair. The near one is the workload's; every address it can think of is answered by
the far one, where the services are (``world.py``) and every packet is counted. Nothing leads to the host's network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.rig.netns import ip
from tests.rig.tunnels import self_signed

ROOT = Path(__file__).parents[2]
NEAR4, GATEWAY4 = "10.44.0.2", "10.44.0.1"
NEAR6, GATEWAY6 = "fd44::2", "fd44::1"
# What scripts find in their environment, and what names of the world mean. The outside is of the ranges for documentation.
PLACES = {
    "POOL": "203.0.113.10",  # Stratum, plain: TCP 3333 14444 5555 22 53 80 443 8080, UDP 3333
    "TLSPOOL": "203.0.113.11",  # Stratum in TLS: 443 3333 14443
    "SSH": "203.0.113.20",  # OpenSSH's server: 22 443 2222 8022
    "INTRUDER": "203.0.113.30",  # who sits at the other end of shells and relays; see world.py for its ports
    "WEB": "203.0.113.40",  # HTTP 80, HTTPS 443, with a directory that cases can fill
    "INTRANET": "10.44.1.10",  # HTTP 80 and 8080, inside: what a relay is to reach
    "SERVER": "10.44.1.20",  # TCP 5432 and 6379: takes connections, echoes
    "METADATA": "169.254.169.254",
    "FAR": "198.51.100.10",  # nothing of ours: where a case's own ``far`` script may listen,
    "INSIDE": "10.44.2.10",  # and an internal address of the same
}
PLACES6 = {"POOL6": "2001:db8::10", "SSH6": "2001:db8::20", "INTRUDER6": "2001:db8::30", "WEB6": "2001:db8::40"}
ENDS_WITH_US = ("setpriv", "--pdeathsig", "TERM")  # a harness that is killed leaves no service behind
SERVICES = {k.lower(): v for k, v in PLACES.items()}


class Site:
    """``with Site(label, directory, number, names)``; ``reset`` before a case, ``report`` after it."""

    def __init__(self, label: str, directory: Path, number: int, names: tuple[str, ...] = ()) -> None:
        self.name = f"{label}-{os.getpid()}-site{number}"
        self.near, self.far = f"{self.name}n", f"{self.name}f"
        self.directory = directory / f"site{number}"
        self.ssh_directory = self.directory / "ssh"
        self.web_directory = self.directory / "web"
        self._names = names  # that the certificate is to be good for
        self._world: subprocess.Popen[str] | None = None
        self._host: subprocess.Popen[str] | None = None
        self._sshd: subprocess.Popen[bytes] | None = None

    # --- building ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Site:
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _build(self) -> None:
        self.ssh_directory.mkdir(parents=True, mode=0o700)
        self.web_directory.mkdir()
        self._network()
        self._certificate()
        self._keys()
        self._world = self._serve(self.far, "world")
        self._host = self._serve(self.near, "host")
        self._start_sshd()

    def _network(self) -> None:
        for name in (self.near, self.far):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.near, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.far)
        for name, address4, address6 in ((self.near, NEAR4, NEAR6), (self.far, GATEWAY4, GATEWAY6)):
            ip("-n", name, "address", "add", f"{address4}/30", "dev", "eth0")
            ip("-n", name, "address", "add", f"{address6}/126", "dev", "eth0", "nodad")
            ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", self.near, "route", "add", "default", "via", GATEWAY4)
        ip("-n", self.near, "-6", "route", "add", "default", "via", GATEWAY6)
        for address in (*PLACES.values(), *PLACES6.values()):
            ip("-n", self.far, "address", "add", address, "dev", "lo", *(("nodad",) if ":" in address else ()))
        # All the rest of the world is here: the far side takes every address for its own.
        ip("-n", self.far, "route", "add", "local", "default", "dev", "lo", "table", "main")
        ip("-n", self.far, "-6", "route", "add", "local", "default", "dev", "lo", "table", "main")

    def _certificate(self) -> None:
        """Of a CA that the workload is told to trust, good for every name and address that is known here."""
        names = sorted({f"{s}.example" for s in SERVICES} | {"*.example", "example", *self._names})
        alternatives = [f"DNS:{n}" for n in names] + [f"IP:{a}" for a in (*PLACES.values(), *PLACES6.values())]
        where = self.directory
        options = ["-subj", "/CN=example", "-addext", f"subjectAltName={','.join(alternatives)}"]
        self_signed(where / "key.pem", where / "ca.pem", *options)

    def _keys(self) -> None:
        for key in ("host_key", "id_ed25519"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "eval", "-f", self.ssh_directory / key],
                check=True,
            )
        shutil.copy(self.ssh_directory / "id_ed25519.pub", self.ssh_directory / "authorized_keys")
        public = " ".join((self.ssh_directory / "host_key.pub").read_text().split()[:2])
        hosts = [PLACES["SSH"], PLACES6["SSH6"], "ssh.example", "git.example", "127.0.0.1"]
        entries = [e for h in hosts for e in (h, *(f"[{h}]:{p}" for p in (443, 2222, 8022)))]
        (self.ssh_directory / "known_hosts").write_text("".join(f"{e} {public}\n" for e in entries))

    def _serve(self, namespace: str, role: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.eval.world", role, str(self.directory)]
        process = subprocess.Popen(
            [*ENDS_WITH_US, "ip", "netns", "exec", namespace, *command],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._tell(process, {"do": "ready"})
        return process

    def _start_sshd(self) -> None:
        config = self.ssh_directory / "sshd_config"
        ports = "".join(f"Port {p}\n" for p in (22, 443, 2222, 8022))
        config.write_text(
            f"{ports}ListenAddress {PLACES['SSH']}\nListenAddress {PLACES6['SSH6']}\n"
            f"HostKey {self.ssh_directory}/host_key\nAuthorizedKeysFile {self.ssh_directory}/authorized_keys\n"
            "StrictModes no\nPidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nGatewayPorts yes\n"
            "PermitTunnel yes\nLogLevel ERROR\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.directory / "sshd.log").open("wb") as log:
            self._sshd = subprocess.Popen(
                [*ENDS_WITH_US, "ip", "netns", "exec", self.far, "/usr/sbin/sshd", "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._tell(self._world, {"do": "await", "port": 22})

    # --- one case ---------------------------------------------------------------------------------------------------

    def reset(self, names: dict[str, str]) -> None:
        """Forget what was counted; ``names`` are further DNS names, each with an address or a service's name."""
        # What the last case left unsent would be sent again, now that nobody watches: orphaned connections are cut off.
        subprocess.run(
            ["ip", "netns", "exec", self.near, "ss", "-tKH", "state", "connected"], capture_output=True, check=True
        )
        shutil.rmtree(self.web_directory)
        self.web_directory.mkdir()
        self._tell(self._world, {"do": "reset", "names": {n: SERVICES.get(a, a) for n, a in names.items()}})

    def report(self) -> dict[str, Any]:
        """What the far side has counted since ``reset``: see ``world.World.report``."""
        return self._tell(self._world, {"do": "report"})

    def _tell(self, process: subprocess.Popen[str] | None, order: dict[str, Any]) -> dict[str, Any]:
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.name}: the services ended while they were told to {order['do']} (their words are above)"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def remove(self) -> None:
        """End the services and remove the namespaces; harmless when they are gone."""
        for process in (self._sshd, self._world, self._host):
            if process is not None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for name in (self.near, self.far):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
