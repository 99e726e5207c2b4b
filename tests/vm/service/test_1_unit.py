"""Installed by systemd/README.md's own words, and run by a real systemd under the unit as it is shipped."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.kernel import pins
from tests.rig.build import program
from tests.vm.service.far import FAR4
from tests.vm.service.host import (
    ROOT,
    UNIT,
    answers,
    arrived,
    cgroup_events,
    client,
    main_pid,
    prop,
    sh,
    until,
    workload,
)

CUT_OFF, FREE = Containment(severed=True, frozen=True), Containment()
VENV = Path("/usr/local/lib/killswitch")
PROBED = Path("/var/lib/killswitch/probe.json")
# Times for a CPU that is some twenty times slower; and the sandbox is tried from inside, before the daemon.
DROP_IN = f"""
[Service]
TimeoutStartSec=600
WatchdogSec=90
ExecStartPre=/usr/bin/python3 {ROOT}/tests/vm/service/probe.py {PROBED}
ExecReload=
ExecReload=killswitch --timeout 600 policy reload --reason "systemctl reload killswitchd"
"""


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    """The wheel in an environment of its own, then the commands of the README, as they stand there."""
    sh("python3", "-m", "venv", "--system-site-packages", "--without-pip", str(VENV))
    [wheel] = (ROOT / "wheels").glob("killswitch-*.whl")
    [pip] = Path("/usr/share/python-wheels").glob("pip-*.whl")
    options = ("--quiet", "--no-index", "--no-deps", "--no-compile")
    sh(f"{VENV}/bin/python", f"{pip}/pip", "install", *options, str(wheel))
    [site] = VENV.glob("lib/python3*/site-packages")
    for compiled in ROOT.glob("killswitch/**/__pycache__"):  # of the same sources; here it would be a minute's work
        shutil.copytree(compiled, site / compiled.relative_to(ROOT))
    # What it depends on: a registry cannot be asked from here.
    (site / "dependencies.pth").write_text(f"{ROOT}/.venv/lib/python3.{sys.version_info.minor}/site-packages\n")
    Path("/usr/local/bin/killswitch").symlink_to(VENV / "bin/killswitch")
    drop_in = Path("/etc/systemd/system/killswitchd.service.d/emulated.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(DROP_IN)
    alert = ROOT / "systemd/examples/killswitchd.service.d/alert.conf"
    (drop_in.parent / "alert.conf").write_text(alert.read_text())
    sh("install", "-m", "755", str(program("sender")), "/usr/local/bin/ks-test-sender")
    sh("systemctl", "enable", "--quiet", "--now", "ks-test-far.service")
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "systemd/README.md").read_text(), re.MULTILINE | re.DOTALL)
    [by_hand] = [block for block in blocks if "systemctl enable --now killswitchd" in block]
    commands = [line for line in by_hand.splitlines() if not line.startswith("killswitch doctor")]
    sh("bash", "-euc", f"cd {ROOT}\n" + "\n".join(commands))
    yield


def service(name: str, command: str) -> str:
    """Start a command as a service in agents.slice; the unit's name."""
    sh("systemd-run", f"--unit={name}", "--slice=agents.slice", "-p", "TimeoutStopSec=5", "bash", "-c", command)
    until(f"{name} watched", lambda: workload(f"{name}.service"))
    return f"{name}.service"


def test_it_is_ready_when_systemd_says_so() -> None:
    assert prop("ActiveState") == "active"  # enable --now came back: READY=1 was received
    assert prop("StatusText").startswith("armed")
    assert prop("NRestarts") == "0"
    assert answers()


def test_doctor_says_what_this_kernel_can() -> None:
    said = sh("killswitch", "doctor", check=False)
    assert "exec" in said
    assert "Traceback" not in said


def test_the_sandbox_is_in_force_and_leaves_what_it_needs() -> None:
    tried = json.loads(PROBED.read_text())
    needed = {
        "write its state": "done", "write a cgroup": "done", "write bpffs": "done", "unix socket": "done",
        "netlink socket": "done", "send to itself": "done", "real-time class": "done", "new network namespace": "done",
        "bpf": "EINVAL",
    }  # fmt: skip
    refused = {
        "write /etc": "EROFS", "write /usr": "EROFS", "write /root": "EROFS", "write /proc/sys": "EROFS",
        "disk": "ENOENT", "memory device": "ENOENT", "packet socket": "EAFNOSUPPORT", "vsock": "EAFNOSUPPORT",
        "send outside": "EPERM", "new user namespace": "EPERM", "new mount namespace": "EPERM",
        "writable and executable memory": "EPERM", "set-user-id file": "EPERM", "load a module": "EPERM",
        "load a kernel": "EPERM", "reboot": "EPERM", "set the clock": "EPERM", "set the host name": "EPERM",
        "another execution domain": "EPERM", "raw disk by mknod": "EPERM",
    }  # fmt: skip
    assert tried == needed | refused


def test_the_process_has_what_the_unit_gives_and_no_more() -> None:
    status = Path(f"/proc/{main_pid()}/status").read_text()
    unit = (ROOT / "systemd/killswitchd.service").read_text()
    named = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert named
    for field in ("CapBnd", "CapEff"):
        held = int(re.search(rf"{field}:\s*(\w+)", status)[1], 16)  # type: ignore[index]
        assert held.bit_count() == len(named[1].split())
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert Path(f"/proc/{main_pid()}/oom_score_adj").read_text() == "-900\n"


def test_a_service_is_killed_proven_and_released() -> None:
    # A new socket each second: those of the time before the cut are destroyed, and none of them sends again.
    unit = service("talker", f"while :; do ks-test-sender udp {FAR4} 7001 1 20000; sleep 0.1; done")
    until("it sends", lambda: arrived(7001) > 5)
    with client() as c:
        killed = c.kill(unit, "test", wait_for_evidence=True)
    cut = time.time()
    assert killed.complete, killed.receipts
    assert killed.workload.observed == CUT_OFF
    assert cgroup_events(unit)["frozen"] == 1
    time.sleep(3)
    assert arrived(7001, since=cut) == 0
    with client() as c:
        assert c.release(unit, "test").workload.observed == FREE
    until("it sends again", lambda: arrived(7001, since=cut) > 5)


def test_run_starts_a_workload_and_hands_on_its_status() -> None:
    assert sh("killswitch", "run", "--name", "job", "--", "bash", "-c", "echo done; exit 0") == "done\n"


def cut_off_through(unit: str, *what: str) -> None:
    """Something is done to the daemon while ``talker`` is cut off: it stays so, and the daemon comes back."""
    with client() as c:
        c.kill("talker.service", "test")
    cut, before, restarts = time.time(), main_pid(), int(prop("NRestarts"))
    sh(*what)
    until("another daemon", lambda: main_pid() not in (0, before) and prop("ActiveState") == "active")
    until("it answers", answers)
    w = workload("talker.service")
    assert w
    assert (w.desired, w.observed) == (CUT_OFF, CUT_OFF)
    assert arrived(7001, since=cut) == 0
    assert what[1] == "restart" or int(prop("NRestarts")) > restarts
    assert int(prop("NRestarts")) < 100
    with client() as c:
        assert c.status().adopted
        assert c.verify_log()[0]
        assert c.release("talker.service", "test").complete
    assert unit == UNIT


def test_a_restart_lets_nothing_go() -> None:
    cut_off_through(UNIT, "systemctl", "restart", UNIT)


def test_killed_it_is_started_again() -> None:
    cut_off_through(UNIT, "systemctl", "kill", "--signal=SIGKILL", UNIT)
    alerts = sh("journalctl", "--boot", "--no-pager", "--identifier=killswitch", "--grep=the daemon ended: signal")
    assert "containment stays in force" in alerts


def test_stopped_it_is_ended_by_the_watchdog_and_started_again() -> None:
    cut_off_through(UNIT, "systemctl", "kill", "--signal=SIGSTOP", "--kill-whom=main", UNIT)
    ended = sh("journalctl", "--boot", "--no-pager", "--unit", UNIT, "--grep=Failed with result")
    assert "watchdog" in ended


def test_an_upgrade_takes_over_with_no_gap() -> None:
    """Another package with another data plane in it: the object's hash differs, the programs do the same."""
    [obj] = VENV.glob("lib/python3*/site-packages/killswitch/bpf/killswitch.bpf.o")
    before = pins.name_of(obj)
    obj.write_bytes(obj.read_bytes() + b"\0")
    after = pins.name_of(obj)
    assert before != after
    with client() as c:
        c.kill("talker.service", "test")
    cut = time.time()
    sh("systemctl", "restart", UNIT)
    pinned = [p.name for p in Path("/sys/fs/bpf/killswitch").iterdir() if p.is_dir()]
    assert pinned == [after]
    w = workload("talker.service")
    assert w
    assert w.observed == CUT_OFF
    assert arrived(7001, since=cut) == 0
    with client() as c:
        assert c.release("talker.service", "test").complete
    until("it sends again", lambda: arrived(7001, since=cut) > 5)


def test_a_reload_is_one_for_systemd_too() -> None:
    pid = main_pid()
    sh("systemctl", "reload", UNIT)
    assert main_pid() == pid
    assert prop("ActiveState") == "active"


def test_a_contained_service_that_is_started_anew_does_not_talk() -> None:
    """Its cgroup is removed and made again by systemd; who is faster, it or the daemon, is not decided by us."""
    with client() as c:
        c.kill("talker.service", "test")
    cut = time.time()
    sh("systemctl", "kill", "--signal=SIGKILL", "talker.service")
    until("its place is held", lambda: (w := workload("talker.service")) and w.id and not w.processes)
    sh("systemctl", "reset-failed", "talker.service", check=False)
    sh(
        "systemd-run",
        "--unit=talker",
        "--slice=agents.slice",
        "--no-block",
        "ks-test-sender",
        "udp",
        FAR4,
        "7001",
        "36000",
    )
    until("frozen", lambda: (w := workload("talker.service")) and w.observed == CUT_OFF)
    assert arrived(7001, since=cut) == 0
    with client() as c:
        c.release("talker.service", "test")
    sh("systemctl", "stop", "talker.service", check=False)


def test_stopped_by_systemd_nothing_is_let_go_and_started_it_is_there_again() -> None:
    unit = service("lasting", f"exec ks-test-sender udp {FAR4} 7003 36000 20000")
    until("it sends", lambda: arrived(7003) > 5)
    with client() as c:
        c.kill(unit, "test")
    cut = time.time()
    sh("systemctl", "stop", UNIT)
    assert cgroup_events(unit)["frozen"] == 1
    sh("systemctl", "start", UNIT)
    w = workload(unit)
    assert w
    assert w.observed == CUT_OFF
    assert arrived(7003, since=cut) == 0
    with client() as c:
        c.release(unit, "test")
    sh("systemctl", "stop", unit)
