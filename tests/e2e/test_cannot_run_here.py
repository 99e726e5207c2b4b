"""A host on which the daemon cannot run: it says which thing is at fault and what mends it, in one line, and is gone.

Mounts are made in a mount namespace of the daemon's own, which ends with it.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.kernel import cgroupfs, probe
from killswitch.kernel.loader import find_object
from tests.rig.daemon import ROOT, Daemon

MakeDaemon = Callable[..., Daemon]
REBUILD = "build it anew: make bpf"


def said(daemon: Daemon, **environment: str) -> tuple[int, str]:
    """(exit status, its one line) of a daemon that must not come up."""
    before = len(daemon.log())
    process = daemon.launch(KILLSWITCH_LOG_LEVEL="info", **environment)
    try:
        status = process.wait(60)
    finally:
        process.kill()
        process.wait()
    lines = daemon.log()[before:].splitlines()
    assert len(lines) == 1, lines
    assert "\\x0a" not in lines[0]
    return status, lines[0].removeprefix("<2>not started: ")


def nothing_left(daemon: Daemon) -> bool:
    sockets = list(daemon.runtime_dir.glob("*")) if daemon.runtime_dir.is_dir() else []
    cgroups = [p for p in daemon.cgroup_dir.iterdir() if p.is_dir()]
    return not daemon.pin_dir.exists() and sockets == [] and cgroups == []


def in_mounts(script: str) -> tuple[str, ...]:
    """Prefix: ``script`` runs first, in a mount namespace; the daemon's own mounts stay in there too."""
    return ("unshare", "--mount", "--propagation", "slave", "sh", "-c", f'{script} && exec "$@"', "sh")


# --- the object file --------------------------------------------------------------------------------------------------


def with_object(daemon: Daemon, obj: Path | None) -> Path:
    """The daemon runs from a copy of the package that has this object file, or none. Where it is looked for."""
    package = daemon.directory / "copy" / "killswitch"
    shutil.copytree(ROOT / "killswitch", package, ignore=shutil.ignore_patterns("*.o", "__pycache__"))
    (package / "bpf").mkdir(exist_ok=True)
    place = package / "bpf" / "killswitch.bpf.o"
    if obj:
        shutil.copy(obj, place)
    daemon.env["PYTHONPATH"] = f"{package.parent}:{daemon.env['PYTHONPATH']}"
    return place


def compiled(directory: Path, program: str) -> Path:
    source, obj = directory / "extra.bpf.c", directory / "extra.bpf.o"
    source.write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\nchar _license[] SEC("license") = "GPL";\n' + program
    )
    include = ("-I", ROOT / "bpf", "-I", f"/usr/include/{platform.machine()}-linux-gnu")
    subprocess.run(["clang", "-target", "bpf", "-mcpu=v3", "-g", "-O2", *include, "-c", source, "-o", obj], check=True)
    return obj


def with_one_more(directory: Path, program: str) -> Path:
    """The real data plane, and this program."""
    linked = directory / "linked.bpf.o"
    bpftool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    subprocess.run([bpftool, "gen", "object", linked, find_object(), compiled(directory, program)], check=True)
    return linked


def test_the_object_is_missing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    place = with_object(daemon, None)
    status, line = said(daemon)
    assert status == 1
    assert line.startswith(f"find the BPF object {place}: No such file or directory")
    assert REBUILD in line
    assert nothing_left(daemon)


def test_the_object_is_none(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not an object")
    daemon = make_daemon()
    place = with_object(daemon, tmp_path / "text")
    status, line = said(daemon)
    assert status == 1
    assert line.startswith(f"open the BPF object {place}: Exec format error")
    assert REBUILD in line
    assert nothing_left(daemon)


def test_the_object_is_no_data_plane(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon()
    harmless = compiled(tmp_path, 'SEC("tracepoint/syscalls/sys_enter_getpid") int other(void *c) { return 0; }')
    place = with_object(daemon, harmless)
    status, line = said(daemon)
    assert status == 1
    assert line.startswith(f"load the BPF object {place}: ")
    assert "no data plane of this release" in line
    assert nothing_left(daemon)


UNKNOWN_HELPER = """
static long (*no_such_helper)(void) = (void *)9999;
SEC("tp_btf/sched_process_exec") int too_new(void *c) { return no_such_helper(); }
"""
UNKNOWN_HOOK = 'SEC("tp_btf/ks_test_no_such_tracepoint") int too_new(void *c) { return 0; }'
LSM = 'SEC("lsm/bprm_check_security") int too_new(void *c) { return 0; }'
FENTRY = 'SEC("fentry/bpf_fentry_test1") int too_new(void *c) { return 0; }'


@pytest.mark.parametrize(
    ("program", "why", "capability"),
    [
        pytest.param(UNKNOWN_HELPER, "the verifier says: invalid func unknown#9999", "", id="helper"),
        pytest.param(UNKNOWN_HOOK, "failed to find kernel BTF type ID of 'ks_test_no_such_tracepoint'", "", id="hook"),
        pytest.param(LSM, "this kernel refuses it: ", "lsm", id="lsm"),
        pytest.param(FENTRY, "this kernel refuses it: ", "fentry", id="fentry"),
    ],
)
def test_the_kernel_refuses_a_program(
    make_daemon: MakeDaemon, tmp_path: Path, program: str, why: str, capability: str
) -> None:
    """It is named, with the reason; and what was in force stays in force."""
    if any(c.available for c in probe.capabilities() if c.name == capability):
        pytest.skip(f"this kernel takes {capability} programs: there is nothing that it refuses")
    refused = with_one_more(tmp_path, program)
    fresh = make_daemon()
    place = with_object(fresh, refused)
    status, line = said(fresh)
    assert status == 1
    assert line.startswith(f"load the BPF program too_new of {place}: ")
    assert why in line
    assert nothing_left(fresh)


def test_a_refused_upgrade_leaves_everything_in_force(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon().start()
    daemon.watched("agent")
    daemon.client.kill("agent", "test")
    daemon.stop()
    before = sorted(daemon.pin_dir.rglob("*"))
    good = daemon.env["PYTHONPATH"]
    with_object(daemon, with_one_more(tmp_path, UNKNOWN_HELPER))
    assert said(daemon)[0] == 1
    assert sorted(daemon.pin_dir.rglob("*")) == before
    assert cgroupfs.is_frozen(daemon.cgroup_dir / "agent")
    daemon.env["PYTHONPATH"] = good
    daemon.start()
    assert daemon.client.status().adopted
    w = daemon.workload("agent")
    assert w
    assert w.observed == Containment(severed=True, frozen=True)


# --- the kernel and its privileges ------------------------------------------------------------------------------------


def test_the_kernel_has_no_btf(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    empty = daemon.directory / "empty"
    empty.touch()
    daemon.prefix = in_mounts(f"mount --bind {empty} /sys/kernel/btf/vmlinux")
    status, line = said(daemon)
    assert status == 1
    assert "/sys/kernel/btf/vmlinux" in line
    assert "boot one with CONFIG_DEBUG_INFO_BTF=y" in line
    assert nothing_left(daemon)


def test_without_the_capabilities(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.prefix = ("setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon,-net_admin")
    status, line = said(daemon)
    assert status == 1
    assert "Operation not permitted" in line
    assert "it needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or CAP_SYS_ADMIN" in line
    assert nothing_left(daemon)


def test_bpffs_that_cannot_be_mounted(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.prefix = (*in_mounts("umount --lazy /sys/fs/bpf"), "setpriv", "--bounding-set=-sys_admin")
    status, line = said(daemon)
    assert status == 1
    assert line.startswith("mount bpffs at /sys/fs/bpf: Operation not permitted")
    assert "mount -t bpf bpf /sys/fs/bpf" in line
    assert nothing_left(daemon)


@pytest.mark.parametrize("place", ["/proc/ks-test", "/etc/hostname/ks-test"])
def test_pins_where_none_can_be(make_daemon: MakeDaemon, place: str) -> None:
    daemon = make_daemon(KILLSWITCH_PIN_DIR=place)
    status, line = said(daemon)
    assert status == 1
    assert line.startswith(f"create {place} to mount bpffs on: ")
    assert "choose another pin_dir, such as /sys/fs/bpf/killswitch" in line
    assert nothing_left(daemon)


def test_pins_elsewhere_get_a_bpffs_of_their_own(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    pins = daemon.directory / "pins"
    daemon.env["KILLSWITCH_PIN_DIR"] = str(pins)
    daemon.prefix = in_mounts("true")
    daemon.start()
    assert daemon.process
    mounts = Path(f"/proc/{daemon.process.pid}/mountinfo").read_text()
    assert any(f" {pins} " in line and " - bpf " in line for line in mounts.splitlines())
    daemon.watched("agent")
    assert daemon.client.kill("agent", "test").complete
    assert str(pins) not in Path("/proc/self/mountinfo").read_text()  # the mount was the daemon's alone


def test_broken_pins_are_named_and_left_alone(make_daemon: MakeDaemon) -> None:
    """They may be what keeps something severed: to throw them away is an operator's decision."""
    daemon = make_daemon()
    broken = daemon.pin_dir / "0123456789abcdef"
    broken.mkdir(parents=True)
    status, line = said(daemon)
    assert status == 1
    assert line.startswith(f"take over the data plane that is pinned at {broken}: ")
    assert f"rm -r {broken}" in line
    assert list(daemon.pin_dir.iterdir()) == [broken]


def test_what_is_not_ours_beside_the_pins_is_in_nobodys_way(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    foreign = daemon.pin_dir / "somebody-elses"
    foreign.mkdir(parents=True)
    daemon.start()
    assert foreign.is_dir()


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mount", ["/tmp", "/nonexistent", "/sys/kernel"])
def test_cgroup_mount_that_is_none(make_daemon: MakeDaemon, mount: str) -> None:
    daemon = make_daemon(KILLSWITCH_CGROUP_MOUNT=mount)
    status, line = said(daemon)
    assert status == 2
    assert line.startswith(f"cgroup_mount: use cgroup mount {mount}: ")
    assert "findmnt -t cgroup2" in line
    assert nothing_left(daemon)


def test_no_cgroup_v2(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.prefix = in_mounts(f"umount --lazy {cgroupfs.find_mount()}")
    status, line = said(daemon)
    assert status == 1
    assert line.startswith("find cgroup v2: ")
    assert "mount -t cgroup2" in line
    assert nothing_left(daemon)


def read_only(directory: Path) -> tuple[str, ...]:
    directory.mkdir(exist_ok=True)
    return in_mounts(f"mount -t tmpfs -o ro ks-test {directory}")


@pytest.mark.parametrize("what", ["state", "runtime"])
def test_places_on_a_read_only_disk(make_daemon: MakeDaemon, what: str) -> None:
    daemon = make_daemon()
    disk = daemon.directory / "disk"
    daemon.prefix = read_only(disk)
    status, line = said(daemon, **{f"KILLSWITCH_{what.upper()}_DIR": str(disk / "place")})
    assert status == 2
    assert line.startswith(f"{disk / 'place'}: cannot be made: Read-only file system; ")
    assert nothing_left(daemon)


def test_a_runtime_directory_that_cannot_be_written(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.prefix = read_only(daemon.runtime_dir)
    status, line = said(daemon)
    assert status == 2
    assert line.startswith(f"{daemon.runtime_dir}: no socket can be made there; ")
    assert nothing_left(daemon)


@pytest.mark.parametrize("what", ["state", "runtime"])
def test_a_file_in_the_way(make_daemon: MakeDaemon, what: str) -> None:
    daemon = make_daemon()
    place = daemon.directory / "place"
    place.touch()
    status, line = said(daemon, **{f"KILLSWITCH_{what.upper()}_DIR": str(place)})
    assert status == 2
    assert line == f"{place}: is in the way and is no directory; remove it, or choose another"
    assert nothing_left(daemon)


def test_a_state_directory_that_cannot_be_written_delays_no_kill(make_daemon: MakeDaemon) -> None:
    """It is no reason not to pull the switch: records wait in memory, and the health says so."""
    daemon = make_daemon()
    daemon.prefix = read_only(daemon.state_dir)
    daemon.start()
    daemon.watched("agent")
    daemon.spawn("agent", "/bin/sleep", "60")
    result = daemon.client.kill("agent", "test")
    assert result.workload.observed == Containment(severed=True, frozen=True)
    [ledger] = [h for h in daemon.client.status().health if h.part == "ledger"]
    assert not ledger.ok
    assert "ledger.db: cannot be written" in ledger.detail
    released = daemon.client.release("agent", "test")
    assert released.workload.observed == Containment()
