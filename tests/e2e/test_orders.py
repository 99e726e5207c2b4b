"""Orders: nothing that was seen is lost by one, and none is carried out twice, whatever befalls the daemon meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from killswitch.control.orders import AlreadyUsed
from killswitch.errors import TargetError
from tests.rig.daemon import Daemon

CONNECTS = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: test, version: 1}
workloads:
  - cgroup: /killswitch/**
mode: MODE
rules:
  - id: discard
    title: A connection to the discard port
    level: high
    on: connect
    match:
      there: {destination.port: 9}
    condition: there
    response: [sever]
"""
CONNECT = ("/bin/bash", "-c", ": 2>/dev/null >/dev/tcp/127.0.0.1/9")
TRIES = 8  # connections do not wake the daemon: it looks for them now and then, and may be quicker than we are


def test_unwatch_loses_no_finding(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.write_policies({"test.yaml": CONNECTS.replace("MODE", "monitor")})
    daemon.start()
    for number in range(1, TRIES + 1):
        name = f"job{number}"
        daemon.watched(name)
        assert daemon.spawn(name, *CONNECT).wait(20) == 1
        info = daemon.client.unwatch(name, remove=True)
        assert info.incident == f"inc-{number}"
        assert not (daemon.cgroup_dir / name).exists()
        incident = daemon.client.incident(info.incident)
        assert [(f.rule, f.event.destination_port) for f in incident.findings] == [("discard", 9)]  # type: ignore[union-attr]
        assert incident.closed_unix > 0  # nobody could release it any more


def test_unwatch_is_refused_by_what_comes_out_of_the_rings(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.write_policies({"test.yaml": CONNECTS.replace("MODE", "enforce")})
    daemon.start()
    for number in range(1, TRIES + 1):
        name = f"job{number}"
        daemon.watched(name)
        assert daemon.spawn(name, *CONNECT).wait(20) == 1
        with pytest.raises(TargetError, match=f"{name}: is severed; release it first"):
            daemon.client.unwatch(name, remove=True)
        w = daemon.workload(name)
        assert w
        assert (str(w.desired), w.incident) == ("severed", f"inc-{number}")


# --- the same order again ---------------------------------------------------------------------------------------------


def state(daemon: Daemon, name: str) -> str:
    w = daemon.workload(name)
    assert w
    return str(w.observed)


def test_a_kill_is_answered_once_more_and_not_done_once_more(daemon: Daemon) -> None:
    """The caller lost the answer, an operator has released the workload, and the daemon was killed meanwhile."""
    daemon.watched("job")
    daemon.spawn("job", "/bin/sleep", "100")
    first = daemon.client.kill("job", "test", request_id="only-once")
    daemon.kill9()  # at once: the answer must have been kept before it was given
    daemon.start()
    assert daemon.client.kill("job", "test", request_id="only-once") == first
    daemon.client.release("job", "it was nothing")
    assert daemon.client.kill("job", "test", request_id="only-once") == first
    assert state(daemon, "job") == "free"
    daemon.restart()
    assert daemon.client.kill("job", "test", request_id="only-once") == first
    assert state(daemon, "job") == "free"
    assert [i.id for i in daemon.client.incidents()] == [first.incident]
    second = daemon.client.kill("job", "test")  # with an id of its own it is another order
    assert second.incident != first.incident
    assert state(daemon, "job") == "severed+frozen"


def test_a_release_is_not_done_once_more(daemon: Daemon) -> None:
    daemon.watched("job")
    daemon.client.kill("job", "test")
    first = daemon.client.release("job", "test", request_id="let-go")
    daemon.kill9()
    daemon.start()
    daemon.client.kill("job", "it began again")
    assert daemon.client.release("job", "test", request_id="let-go") == first
    assert state(daemon, "job") == "severed+frozen"


def test_an_id_is_for_one_order_over_a_restart(daemon: Daemon) -> None:
    daemon.watched("job")
    daemon.client.sever("job", "test", request_id="mine")
    daemon.restart()
    with pytest.raises(AlreadyUsed, match="'mine' was used for another order"):
        daemon.client.freeze("job", "test", request_id="mine")
    with pytest.raises(AlreadyUsed, match="'mine' was used for another order"):
        daemon.client.sever("job", "another reason", request_id="mine")
    assert state(daemon, "job") == "severed"


def test_every_other_order_is_answered_once_more(daemon: Daemon) -> None:
    path = f"{daemon.cgroup_parent}/made"
    watched = daemon.client.watch(path, create=True, request_id="1")
    gone = daemon.client.unwatch("made", remove=True, request_id="2")
    policies = daemon.client.reload_policies("test", request_id="3")
    tested = daemon.client.self_test("test", request_id="4")
    daemon.restart()
    (daemon.policy_dir / "broken.yaml").write_text("{")
    assert daemon.client.watch(path, create=True, request_id="1") == watched
    assert not (daemon.cgroup_dir / "made").exists()
    assert daemon.client.unwatch("made", remove=True, request_id="2") == gone
    assert daemon.client.reload_policies("test", request_id="3") == policies
    assert daemon.client.self_test("test", request_id="4") == tested
    whole, text = daemon.client.verify_log()
    assert whole, text


def test_what_failed_can_be_ordered_again(daemon: Daemon) -> None:
    with pytest.raises(TargetError):
        daemon.client.kill("job", "test", request_id="again")
    daemon.restart()
    daemon.watched("job")
    assert daemon.client.kill("job", "test", request_id="again").complete


def test_a_repair_under_way_does_not_undo_a_release(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(KILLSWITCH_RECONCILE_SECONDS="0.1").start()
    daemon.spawn("job", "/bin/sleep", "60")
    daemon.watched("job")
    for _ in range(40):
        assert daemon.client.kill("job", "x").complete
        assert daemon.client.release("job", "false alarm").complete
    assert "had slipped" not in daemon.log()
    w = daemon.workload("job")
    assert w is not None and str(w.observed) == "free"
