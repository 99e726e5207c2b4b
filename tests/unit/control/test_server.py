"""The real server on real unix sockets, spoken to by the real client and by bare gRPC."""

from __future__ import annotations

import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from killswitch import errors
from killswitch.commands import Containment
from killswitch.control.client import Client
from killswitch.control.health import SERVICE
from killswitch.control.service import EventFilter, Health
from killswitch.v1 import killswitch_service_pb2 as pb
from killswitch.v1 import killswitch_service_pb2_grpc, types_pb2
from tests.unit.control.house import Running, running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as r:
        yield r


@pytest.fixture
def admin(daemon: Running) -> Iterator[Client]:
    with Client(daemon.admin) as client:
        yield client


@pytest.fixture
def stub(daemon: Running) -> Iterator[Any]:
    with grpc.insecure_channel(f"unix:{daemon.admin}") as channel:
        yield killswitch_service_pb2_grpc.KillSwitchServiceStub(channel)


def eventually(true: Callable[[], bool]) -> None:
    """Wait for what another thread does; the bound is for a broken build alone."""
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until, "never came true"
        threading.Event().wait(0.005)


def id_() -> str:
    return str(uuid.uuid4())


# --- orders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "options", "service_verb", "becomes"),
    [
        ("kill", {}, "kill", Containment(True, True)),
        ("kill", {"terminate": True, "wait_for_evidence": True}, "kill", Containment(True, True, True)),
        ("sever", {}, "sever", Containment(True)),
        ("freeze", {"wait_for_evidence": True}, "freeze", Containment(False, True)),
        ("thaw", {}, "thaw", Containment()),
        ("terminate", {}, "terminate", Containment(False, False, True)),
        ("release", {"stage": "thaw"}, "release thaw", Containment()),
        ("release", {"stage": "network"}, "release network", Containment()),
        ("release", {}, "release all", Containment()),
    ],
)
def test_each_order_reaches_the_service_as_it_was_given(
    daemon: Running, admin: Client, verb: str, options: dict[str, Any], service_verb: str, becomes: Containment
) -> None:
    result = getattr(admin, verb)("\udcff", "it mines \udc80", request_id="r-1", **options)
    [(called, order)] = daemon.house.orders
    assert called == service_verb
    assert (order.request_id, order.target, order.reason, order.role) == ("r-1", "\udcff", "it mines \udc80", "admin")
    assert order.wait_for_evidence is options.get("wait_for_evidence", False)
    assert result.workload == daemon.house.workloads_by_name["\udcff"]
    assert result.workload.observed == becomes
    assert result.complete and result.receipts[0].proof == {"dropped": 3, "how": "map"}


def test_watch_unwatch_reload_and_self_test(daemon: Running, admin: Client) -> None:
    assert admin.watch("/a/b", name="bee", create=True).name == "bee"
    assert admin.unwatch("bee", remove=True).cgroup == "/a/b"
    assert admin.forget("budget", "mended") == "forgot budget"
    with pytest.raises(errors.TargetError, match="no program of it"):
        admin.forget("nothing", "mistaken")
    assert admin.reload_policies()[0].rules[0]["for"] == "20s"
    assert admin.self_test("after the upgrade").complete
    verbs = [verb for verb, _ in daemon.house.orders]
    assert verbs == ["watch create=True", "unwatch remove=True", "self_test"]
    assert all(order.reason for _, order in daemon.house.orders)


def test_the_same_request_id_is_carried_out_once(daemon: Running, admin: Client) -> None:
    first = admin.kill("one", "r", request_id="same")
    assert admin.kill("one", "r", request_id="same") == first
    assert len(daemon.house.orders) == 1
    with pytest.raises(errors.RequestError, match="'same' was used"):
        admin.kill("two", "r", request_id="same")
    assert len(daemon.house.orders) == 1
    assert admin.kill("one", "r").order_id != first.order_id


def test_reused_request_id_is_already_exists(stub: Any) -> None:
    stub.Kill(pb.KillRequest(request_id="x", target="one", reason="r"))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Sever(pb.SeverRequest(request_id="x", target="one", reason="r"))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_kill_goes_on_when_its_caller_goes_away(daemon: Running, stub: Any, how: str) -> None:
    daemon.do(daemon.house.hold.clear)
    request = pb.KillRequest(request_id="k", target="one", reason="r")
    call = stub.Kill.future(request, timeout=0.2 if how == "deadline" else None)
    assert daemon.house.begun.wait(20)
    if how == "cancelled":
        call.cancel()
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result()
    assert daemon.house.finished == []
    daemon.do(daemon.house.hold.set)
    again = stub.Kill(request)  # joins it
    assert daemon.house.finished == ["kill"] and len(daemon.house.orders) == 1
    assert again.result.workload.observed.frozen


def test_all_wrong_fields_of_an_order_are_told_at_once(stub: Any, daemon: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Release(pb.ReleaseRequest(request_id="é", target=" ", reason="\n"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(bad)
        detail.Unpack(info)
    assert {v.field for v in bad.field_violations} == {"request_id", "target", "reason", "stage"}
    assert (info.reason, info.domain) == ("BAD_REQUEST", "killswitch.v1")
    assert daemon.house.orders == []


@pytest.mark.parametrize(
    ("request_id", "accepted"), [("", False), ("x" * 129, False), ("a\nb", False), ("x" * 128, True)]
)
def test_request_ids(stub: Any, request_id: str, accepted: bool) -> None:
    request = pb.FreezeRequest(request_id=request_id, target="one", reason="r")
    if accepted:
        assert stub.Freeze(request).result.complete
    else:
        with pytest.raises(grpc.RpcError, match="request_id must be"):
            stub.Freeze(request)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "error", "code", "says"),
    [
        ("nobody", errors.TargetError, grpc.StatusCode.NOT_FOUND, "killswitch workloads lists them"),
        ("pid:1", errors.Protected, grpc.StatusCode.FAILED_PRECONDITION, "pid 1: is protected"),
        ("cannot", errors.NotSupported, grpc.StatusCode.UNIMPLEMENTED, "cgroup.kill came with Linux 5.14"),
        ("bug", errors.KillswitchError, grpc.StatusCode.INTERNAL, "ZeroDivisionError"),
    ],
)
def test_errors_come_back_as_they_were_raised(
    admin: Client, stub: Any, target: str, error: type[Exception], code: grpc.StatusCode, says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        admin.terminate(target, "r")
    assert type(caught.value) is error
    assert "secret" not in str(caught.value)
    if isinstance(caught.value, errors.KernelError):
        assert caught.value.code == 95
    with pytest.raises(grpc.RpcError) as bare:
        stub.Terminate(pb.TerminateRequest(request_id=id_(), target=target, reason="r"))
    assert bare.value.code() is code


def test_a_bug_is_logged_with_its_trace(admin: Client, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(errors.KillswitchError):
        admin.kill("bug", "r")
    assert any(r.exc_info and "secret detail" in str(r.exc_info[1]) for r in caplog.records)


def test_policy_problems_come_back_with_their_places_and_the_rest_is_counted(admin: Client) -> None:
    with pytest.raises(errors.PolicyError) as caught:
        admin.reload_policies("broken")
    problems = caught.value.problems
    assert problems[0] == errors.Problem("/etc/p.yaml", 1, 1, "no such field 'nmae'", "name?")
    assert problems[-1].message == f"{399 - (len(problems) - 1)} more problems are not shown here"


def test_a_stage_that_is_none_is_refused_before_anything_is_sent(admin: Client, daemon: Running) -> None:
    with pytest.raises(errors.RequestError, match="'half'"):
        admin.release("one", "r", stage="half")
    assert daemon.house.orders == []


def test_a_read_that_takes_too_long_is_timed_out(daemon: Running) -> None:
    daemon.do(daemon.house.hold.clear)
    with Client(daemon.admin, timeout=0.05) as client, pytest.raises(errors.TimedOut):
        client.workloads()


# --- roles and sockets ----------------------------------------------------------------------------------------------


def test_the_view_socket_reads_and_nothing_else(daemon: Running) -> None:
    with Client(daemon.view) as view:
        assert view.status().pid == 7
        assert dict(view.evidence("inc-1"))["tree.json"] == b"{}"
        orders: list[Callable[[], object]] = [
            lambda: view.kill("one", "r"),
            lambda: view.release("one", "r"),
            lambda: view.watch("/a"),
            lambda: view.unwatch("one"),
            lambda: view.reload_policies(),
            lambda: view.self_test(),
        ]
        for order in orders:
            with pytest.raises(errors.Denied, match="admin socket"):
                order()
    assert daemon.house.orders == []


def test_the_sockets_are_not_for_everybody(daemon: Running) -> None:
    assert stat.S_IMODE(daemon.admin.stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.view.stat().st_mode) in (0o600, 0o660)


def test_reflection_is_for_admins(daemon: Running) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(f"unix:{daemon.admin}") as channel:
        [answer] = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        assert SERVICE in {s.name for s in answer.list_services_response.service}
    with grpc.insecure_channel(f"unix:{daemon.view}") as channel, pytest.raises(grpc.RpcError) as caught:
        list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request])))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_tells_of_the_whole_and_of_each_part(daemon: Running) -> None:
    with grpc.insecure_channel(f"unix:{daemon.view}") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def check(name: str) -> int:
            return int(health.Check(health_pb2.HealthCheckRequest(service=name)).status)

        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert [check(n) for n in ("", SERVICE, "ring", "ledger")] == [serving] * 4
        watch = health.Watch(health_pb2.HealthCheckRequest(service="ledger"))
        assert next(watch).status == serving
        daemon.house.health[1] = Health("ledger", False, "disk full")
        assert [check(n) for n in ("", SERVICE, "ring", "ledger")] == [not_serving, serving, serving, not_serving]
        assert next(watch).status == not_serving
        watch.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            check("nonsense")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# --- reads ----------------------------------------------------------------------------------------------------------


def test_reads_come_back_as_the_service_gave_them(daemon: Running, admin: Client) -> None:
    house = daemon.house
    assert admin.status() == daemon.call(house.status())
    assert admin.workloads() == sorted(daemon.call(house.workloads()), key=lambda w: w.cgroup)
    assert [i.id for i in admin.incidents()] == ["inc-2", "inc-1"]
    assert [i.id for i in admin.incidents(open_only=True)] == ["inc-2"]
    assert [i.id for i in admin.incidents(limit=1)] == ["inc-2"]
    assert admin.incident("inc-1") == daemon.call(house.incident("inc-1"))
    assert admin.capabilities() == daemon.call(house.capabilities())
    assert admin.policies() == daemon.call(house.policies())
    assert admin.check_policy("bad: x", "f.yaml") == [errors.Problem("f.yaml", 3, 7, "bad: bad: ", "good")]
    assert admin.check_policy("fine", "f.yaml") == []
    assert admin.verify_log() == (True, "3 entries")
    with pytest.raises(errors.TargetError, match="inc-9"):
        admin.incident("inc-9")
    with pytest.raises(errors.RequestError, match="incident_id must not be empty"):
        admin.incident("")


def test_evidence_comes_in_chunks_and_whole(daemon: Running, admin: Client) -> None:
    files: dict[str, bytes] = {}
    largest = 0
    for name, chunk in admin.evidence("inc-1"):
        files[name] = files.get(name, b"") + chunk
        largest = max(largest, len(chunk))
    assert files == daemon.house.files
    assert largest <= 256 << 10
    with pytest.raises(errors.TargetError):
        list(admin.evidence("inc-9"))


def test_a_stream_misses_nothing_from_the_moment_it_is_there(daemon: Running, admin: Client) -> None:
    items = admin.stream()
    daemon.do(lambda: daemon.house.publish(100))
    got = [next(items) for _ in range(100)]
    assert [i.event.time_ns for i in got if i.event] == list(range(100))
    assert all(i.dropped == 0 and i.workload_name == "one" for i in got)
    items.close()  # type: ignore[attr-defined]
    eventually(lambda: not daemon.house.readers)  # the daemon has let go of it


def test_a_stream_that_is_refused_says_so_at_once(admin: Client) -> None:
    with pytest.raises(errors.TargetError, match="nobody"):
        next(admin.stream(EventFilter(workload="nobody")))


def test_a_slow_reader_loses_the_oldest_is_told_how_many_and_slows_nobody(tmp_path: Path) -> None:
    with running(tmp_path, stream_depth=50) as daemon, Client(daemon.admin) as client:
        slow = client.stream()
        total = 40_000  # far more than the socket and HTTP/2's window hold
        daemon.do(lambda: daemon.house.publish(total))
        eventually(lambda: daemon.do(lambda: all(q.empty() for q in daemon.house.readers)))
        assert client.status().pid == 7  # the daemon took all of it, and answers, while nothing is read
        seen = dropped = 0
        last = -1
        while last != total - 1:
            item = next(slow)
            dropped += item.dropped
            seen += 1
            assert item.event is not None
            assert item.event.time_ns == last + 1 + item.dropped  # they are missing here, and nowhere else
            last = item.event.time_ns
        assert dropped > 0 and seen + dropped == total
        slow.close()  # type: ignore[attr-defined]


# --- beginning and end ----------------------------------------------------------------------------------------------


def test_stopping_ends_streams_lets_orders_finish_and_leaves_no_socket(daemon: Running, admin: Client) -> None:
    items = admin.stream()
    daemon.do(daemon.house.hold.clear)
    result: list[object] = []
    caller = threading.Thread(target=lambda: result.append(admin.kill("one", "r")))
    caller.start()
    assert daemon.house.begun.wait(20)
    daemon.loop.call_soon_threadsafe(daemon.loop.call_later, 0.05, daemon.house.hold.set)
    daemon.call(daemon.server.stop(20))
    caller.join(20)
    assert daemon.house.finished == ["kill"] and len(result) == 1
    with pytest.raises((StopIteration, errors.Unreachable)):
        next(items)
    assert not daemon.admin.exists() and not daemon.view.exists()


def test_the_daemon_that_is_gone_is_unreachable(daemon: Running, admin: Client) -> None:
    daemon.call(daemon.server.stop(1))
    with pytest.raises(errors.Unreachable, match="systemctl status killswitchd"):
        admin.status()


def test_stage_names_cover_the_enum() -> None:
    from killswitch.control.methods import STAGES

    assert set(STAGES.values()) == set(types_pb2.ReleaseStage.values()) - {0}
