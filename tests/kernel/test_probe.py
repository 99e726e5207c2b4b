from __future__ import annotations

import os
import socket

from killswitch.kernel import cgroupfs, probe, uncovered


def test_every_trial_has_an_answer_that_people_can_read_and_leaves_nothing_behind() -> None:
    probe.capabilities.cache_clear()
    found = probe.capabilities()
    assert len({c.name for c in found}) == len(found) >= 15
    assert all(c.promise and c.reason and "\n" not in c.reason for c in found)
    assert not (cgroupfs.find_mount() / f"ks-probe-{os.getpid()}").exists()
    assert probe.capabilities() is found


def test_what_the_data_plane_of_these_tests_rests_on_is_found_to_work() -> None:
    """The other kernel tests load and attach these for real: a probe that says no is wrong."""
    missing = {c.name: c.reason for c in probe.capabilities() if not c.available}
    needed = {"btf", "tp_btf", "bpf_send_signal", "cgroup_skb", "cgroup_sock_addr", "sockops", "cgroup_freeze", "pidfd"}
    assert needed.isdisjoint(missing), missing


def test_a_hook_that_no_kernel_has_is_found_missing() -> None:
    trial = probe.Trial("x", "y", lambda: probe._at_btf_hook(26, "sched_no_such_thing", 23, b""))
    answer = probe._attempt(trial)
    assert not answer.available and "sched_no_such_thing" in answer.reason


def test_a_program_that_the_verifier_refuses_says_why() -> None:
    from killswitch.kernel import bpfcall

    trial = probe.Trial("x", "y", lambda: str(bpfcall.load(8, bpfcall.EXIT)))  # r0 was never set
    answer = probe._attempt(trial)
    assert not answer.available and "R0 !read_ok" in answer.reason


def test_ways_round_the_programs_are_said_to_be_open_exactly_where_the_kernel_has_them() -> None:
    found = {c.name: c for c in probe.capabilities()}
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()  # as root, on a kernel that runs these tests
    assert found["no_packet_sockets"].available and "devices" in found["no_packet_sockets"].reason
    assert not found["no_unix_helpers"].available
    never_built = uncovered._closed(11, socket.SOCK_STREAM, "AF_SECURITY sockets", "")  # a family that no kernel has
    assert probe._attempt(probe.Trial("x", "y", never_built)).available
