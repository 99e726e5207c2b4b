"""The units are clean by systemd's own tools, and the sandbox that they set up is one that the daemon can live in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "killswitchd.service"
EXAMPLES = tuple(f"killswitch-{name}.{kind}" for name in ("alive", "metrics") for kind in ("service", "timer"))
EXPOSURE = 45  # tenths, of systemd-analyze's 0..100; what it has more than the best service is named in the unit

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as installed: a search path of their own, beside systemd's, and a killswitch that can be executed."""
    program = tmp_path / "killswitch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    of_ours = (UNITS / "examples" / name for name in EXAMPLES)
    for source in (SERVICE, UNITS / "agents.slice", UNITS / "examples/agent.service.d/killswitch.conf", *of_ours):
        target = tmp_path / source.relative_to(UNITS.joinpath("examples") if "examples" in source.parts else UNITS)
        target.parent.mkdir(exist_ok=True)
        target.write_text(
            re.sub(r"^(Exec\w+=\+?)killswitch ", rf"\1{program} ", source.read_text(), flags=re.MULTILINE)
        )
    (tmp_path / "agent.service").write_text("[Service]\nExecStart=/bin/true\n")
    return tmp_path


def verify(directory: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=yes", *(str(directory / n) for n in names)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:", "SYSTEMD_LOG_LEVEL": "info"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["killswitchd.service", "agents.slice", "agent.service", *EXAMPLES])
def test_verify_has_nothing_to_say(units: Path, name: str) -> None:
    done = verify(units, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_would_say_something(units: Path) -> None:
    service = units / "killswitchd.service"
    service.write_text(service.read_text().replace("ProtectClock=", "ProtectClocks="))
    assert "ProtectClocks" in verify(units, "killswitchd.service").stderr


def test_exposure_stays_below_the_threshold() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", str(SERVICE)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-400:]
    assert done.stderr == ""


def settings(unit: Path) -> dict[str, str]:
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_what_the_promises_rest_on() -> None:
    unit = settings(SERVICE)
    assert unit["Type"] == "notify"
    assert unit["NotifyAccess"] == "main"
    assert unit["WatchdogSec"] == "10s"
    assert unit["Restart"] == "always"
    assert unit["StartLimitIntervalSec"] == "0"
    assert unit["OOMScoreAdjust"] == "-900"
    assert unit["LimitMEMLOCK"] == "infinity"
    assert "agents.slice" in unit["Before"].split()
    assert "killswitchd.service" in settings(UNITS / "agents.slice")["After"].split()
    assert "ProtectKernelTunables" not in unit  # it makes bpffs read-only, whatever else is said
    assert "/sys/fs/cgroup" in unit["ReadWritePaths"]
    assert "/sys/fs/bpf" in unit["ReadWritePaths"]


def test_every_sandboxing_option_has_its_reason() -> None:
    service = SERVICE.read_text().partition("[Service]")[2].partition("[Install]")[0]
    part = service[service.index("# --- what it may do") :]
    reasoned = False
    for line in part.splitlines():
        if line.startswith("#"):
            reasoned = True
        elif not line.strip():
            reasoned = False
        elif "=" in line:
            assert reasoned, f"{line}: no reason above it"


def test_tmpfiles_make_the_places(tmp_path: Path) -> None:
    rules = tmp_path / "usr/lib/tmpfiles.d/killswitch.conf"
    rules.parent.mkdir(parents=True)
    shutil.copy(UNITS / "killswitch.tmpfiles", rules)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    done = subprocess.run(
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", "killswitch.conf"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    modes = {"run/killswitch": 0o755, "var/lib/killswitch": 0o700, "etc/killswitch/policies": 0o755}
    assert {p: (tmp_path / p).stat().st_mode & 0o7777 for p in modes} == modes


def test_sysusers_make_the_group(tmp_path: Path) -> None:
    rules = tmp_path / "usr/lib/sysusers.d/killswitch.conf"
    rules.parent.mkdir(parents=True)
    shutil.copy(UNITS / "killswitch.sysusers", rules)
    (tmp_path / "etc").mkdir()
    done = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "killswitch.conf"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^killswitch:x:\d+:$", (tmp_path / "etc/group").read_text(), re.MULTILINE)
