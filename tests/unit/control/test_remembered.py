"""What a daemon before this one answered is answered again; what it left unanswered is begun anew, or refused."""

from __future__ import annotations

import asyncio

import pytest

from killswitch.control.orders import AlreadyUsed
from killswitch.control.remembered import LETS_GO, Given, Interrupted, Remembered
from killswitch.control.roles import ORDERS
from killswitch.v1 import killswitch_service_pb2 as pb


class Disk:
    """Outlives the daemons of a test."""

    def __init__(self) -> None:
        self.given: dict[str, Given] = {}

    async def recall(self, request_id: str) -> Given | None:
        return self.given.get(request_id)

    async def keep(self, request_id: str, given: Given) -> None:
        self.given[request_id] = given


class Work:
    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.error = error

    async def __call__(self) -> pb.KillResponse:
        self.begun += 1
        if self.error:
            raise self.error
        return pb.KillResponse(result={"order_id": f"ord-{self.begun}"})  # type: ignore[arg-type]


def kill(reason: str = "test", request_id: str = "id") -> pb.KillRequest:
    return pb.KillRequest(request_id=request_id, target="job", reason=reason)


def once(disk: Disk | None, work: Work, request: object | None = None, method: str = "Kill") -> pb.KillResponse:
    """As a daemon that was just started."""
    return asyncio.run(Remembered(disk).once(method, request or kill(), work))  # type: ignore[no-any-return]


def test_the_answer_of_before_is_given_again() -> None:
    disk, work = Disk(), Work()
    first = once(disk, work)
    assert first.result.order_id == "ord-1"
    assert once(disk, work) == first
    assert once(disk, work, kill(request_id="other")).result.order_id == "ord-2"
    assert work.begun == 2


def test_without_a_memory_each_daemon_begins_anew() -> None:
    work = Work()
    assert [once(None, work).result.order_id for _ in range(2)] == ["ord-1", "ord-2"]


@pytest.mark.parametrize("again", [("Sever", kill()), ("Kill", kill("another reason"))], ids=["method", "content"])
def test_an_id_stands_for_one_order(again: tuple[str, pb.KillRequest]) -> None:
    disk, work = Disk(), Work()
    once(disk, work)
    with pytest.raises(AlreadyUsed, match="'id' was used for another order"):
        once(disk, work, again[1], again[0])
    assert work.begun == 1


def test_what_failed_is_not_kept() -> None:
    disk = Disk()
    with pytest.raises(ZeroDivisionError):
        once(disk, Work(ZeroDivisionError()))
    assert once(disk, Work()).result.order_id == "ord-1"


@pytest.mark.parametrize("method", sorted(ORDERS))
def test_what_was_left_unanswered(method: str) -> None:
    disk, work = Disk(), Work()
    disk.given["id"] = Given("", None)
    if method in LETS_GO:
        with pytest.raises(Interrupted, match="order anew, with a new id"):
            once(disk, work, method=method)
        assert work.begun == 0
    else:
        once(disk, work, method=method)
        assert work.begun == 1


def test_what_lets_go_is_an_order() -> None:
    assert LETS_GO < ORDERS
