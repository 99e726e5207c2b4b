"""Which tests stand for which promise of DESIGN's: the rows of the matrix, and what is run on other kernels at all."""

from __future__ import annotations

PROMISES: dict[str, tuple[str, ...]] = {
    "loads, attaches, decodes": (
        "tests/kernel/test_dataplane_process.py", "tests/kernel/test_dataplane_socket.py", "tests/kernel/test_dataplane_exec.py",
        "tests/kernel/test_dataplane_limits.py", "tests/kernel/test_probe.py", "tests/kernel/test_census.py",
    ),
    "1 first instruction": (
        "tests/kernel/test_dataplane_verdict.py", "tests/kernel/test_exec_forms.py", "tests/kernel/test_policy_agreement.py",
    ),
    "2 no packet before judgement": ("tests/kernel/test_wire.py", "tests/kernel/test_wire_names.py"),
    "3 severed is severed": (
        "tests/kernel/test_dataplane_sever.py", "tests/kernel/test_sockdiag.py", "tests/e2e/escapes",
        "tests/kernel/test_frames.py",
    ),
    "4 frozen is frozen": (
        "tests/kernel/test_contain.py", "tests/kernel/test_contain_unfreezable.py", "tests/kernel/test_cgroupfs.py",
    ),
    "5 it survives": (
        "tests/kernel/test_dataplane_pins.py", "tests/e2e/test_survival.py", "tests/e2e/test_dead_man.py",
        "tests/e2e/test_held_place.py",
    ),
    "6 never silently less": ("tests/e2e/test_cannot_run_here.py",),
    "7 the operator keeps the way in": (
        "tests/e2e/test_orders.py", "tests/e2e/test_host.py", "tests/e2e/test_host_machine.py", "tests/kernel/test_hostcut.py",
    ),
    "behaviour is seen": ("tests/kernel/test_traffic.py", "tests/kernel/test_stdio.py", "tests/kernel/test_signals.py"),
    "stronger by LSM": (
        "tests/kernel/test_lsm.py", "tests/kernel/test_lsm_severed.py", "tests/kernel/test_lsm_guarded.py",
        "tests/e2e/test_lsm.py",
    ),
    "8 not the wrong one": ("tests/kernel/test_contain_protected.py", "tests/kernel/test_pidfd.py"),
}  # fmt: skip

SERVICE = "under systemd, as it is shipped"

# For CI's time: the promises that hang most on the kernel, by their own tests.
QUICK = (
    "tests/kernel/test_dataplane_process.py", "tests/kernel/test_dataplane_verdict.py", "tests/kernel/test_dataplane_sever.py",
    "tests/kernel/test_dataplane_pins.py", "tests/kernel/test_wire.py", "tests/kernel/test_contain.py",
    "tests/kernel/test_cgroupfs.py", "tests/kernel/test_signals.py", "tests/kernel/test_traffic.py",
)  # fmt: skip


# That the verifier takes every program, that they attach, and that verdict and cut are right: the least for each kernel.
LOADS = (
    "tests/kernel/test_probe.py", "tests/kernel/test_dataplane_verdict.py", "tests/kernel/test_dataplane_sever.py",
)  # fmt: skip


def promise_of(node: str) -> str:
    """The promise that a test (``tests/kernel/test_x.py::test_y``) stands for; "" when it stands for none."""
    if node.startswith("tests/vm/service/"):
        return "5 it survives" if "reboot" in node or "released" in node else SERVICE
    return next((promise for promise, files in PROMISES.items() if node.startswith(files)), "")
