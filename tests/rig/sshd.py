"""A real OpenSSH server at the far side, with keys made for the occasion, and what a client needs to reach it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.rig.netns import FarSide, inside


class Sshd:
    """``with Sshd(far, directory) as server:`` then ``server.client("-R", "9000:localhost:22")`` is the argv of a client."""

    def __init__(self, far: FarSide, directory: Path, *, port: int = 22) -> None:
        self.far, self.directory, self.port = far, directory, port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sshd:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        for key in ("host_key", "client_key"):
            path = self.directory / key
            if not path.exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        shutil.copy(self.directory / "client_key.pub", self.directory / "authorized_keys")
        config = self.directory / "sshd_config"
        config.write_text(
            f"""Port {self.port}
ListenAddress {self.far.far4}
ListenAddress {self.far.far6}
HostKey {self.directory}/host_key
AuthorizedKeysFile {self.directory}/authorized_keys
StrictModes no
PidFile none
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
AllowTcpForwarding yes
GatewayPorts yes
PermitTunnel yes
LogLevel ERROR
"""
        )
        Path("/run/sshd").mkdir(
            mode=0o755, exist_ok=True
        )  # where sshd jails its unprivileged half; made at boot elsewhere
        self._process = self.far.run("/usr/sbin/sshd", "-D", "-e", "-f", str(config), stdin=subprocess.DEVNULL)
        self._wait_until_listening()
        return self

    def _wait_until_listening(self) -> None:
        assert self._process is not None
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"sshd ended with status {self._process.returncode} (its words are above)")
            try:
                inside(self.far.name, lambda: socket.create_connection((self.far.far4, self.port), 1)).close()
                return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError(f"sshd does not listen on {self.far.far4}:{self.port} after 10 s")

    def client(self, *options: str, command: tuple[str, ...] = (), program: str = "/usr/bin/ssh") -> list[str]:
        """The argv of the real client: ``options`` before the host, ``command`` after it."""
        user = pwd.getpwuid(os.getuid()).pw_name
        quiet = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
        fixed = [part for option in quiet for part in ("-o", option)]
        key = str(self.directory / "client_key")
        return [
            program,
            "-F",
            "none",
            *fixed,
            "-i",
            key,
            "-p",
            str(self.port),
            *options,
            f"{user}@{self.far.far4}",
            *command,
        ]

    def listening(self, port: int) -> bool:
        """Whether something over there listens on the port (the far end of a reverse tunnel, say)."""

        def connect() -> bool:
            try:
                socket.create_connection((self.far.far4, port), 0.5).close()
            except OSError:
                return False
            return True

        return inside(self.far.name, connect)

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)
