"""Over the wire and back: every field of every dataclass that the control plane speaks of."""

from __future__ import annotations

import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from killswitch import events
from killswitch.control import convert, wiretext
from killswitch.v1 import event_pb2, types_pb2
from tests.unit.control.strategies import OVER_THE_WIRE

RELAXED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(OVER_THE_WIRE)
def test_everything_survives_the_round_trip(value: object) -> None:
    message = convert.to_wire(value)
    again = type(message).FromString(message.SerializeToString())
    assert convert.from_wire(again) == value
    assert type(convert.from_wire(again)) is type(value)


@given(st.binary())
def test_text_of_a_workload_is_valid_utf8_on_the_wire_and_comes_back_whole(raw: bytes) -> None:
    wire = wiretext.to_wire(events.text(raw))
    wire.encode("utf-8")  # raises for a lone surrogate
    assert wiretext.from_wire(wire).encode("utf-8", "surrogateescape") == raw


def test_characters_of_the_escaping_range_itself_come_back() -> None:
    text = "/a/\uef80\uefff\uef7f\uf000é\udcff"
    assert wiretext.from_wire(wiretext.to_wire(text)) == text


def test_a_surrogate_that_stands_for_no_byte_does_not_stop_a_message() -> None:
    assert wiretext.to_wire("a\ud800b") == "a?b"


@pytest.mark.parametrize("cls", typing.get_args(events.Event))
def test_an_event_whose_fields_are_all_zero_is_still_that_event(cls: type) -> None:
    kind = "".join(f"_{c}" if c.isupper() else c for c in cls.__name__).lstrip("_").lower()
    empty = event_pb2.Event()
    getattr(empty, kind).SetInParent()
    if kind in ("connect", "unanswered", "answered", "listen", "wire", "flow"):
        getattr(empty, kind).transport = event_pb2.TRANSPORT_TCP
    assert type(convert.from_wire(empty)) is cls
    assert convert.kind_of(convert.from_wire(empty)) == kind


def test_a_value_of_a_newer_release_is_an_error_that_says_so() -> None:
    with pytest.raises(convert.NewerPeer, match="event of a kind"):
        convert.from_wire(event_pb2.Event())
    with pytest.raises(convert.NewerPeer, match="Step 99"):
        convert.from_wire(types_pb2.Receipt(step=99, outcome=types_pb2.OUTCOME_DONE))  # type: ignore[arg-type]


def test_what_no_message_carries_is_refused() -> None:
    with pytest.raises(TypeError, match="no message carries a dict"):
        convert.to_wire({})
    with pytest.raises(TypeError, match="expected Receipt"):
        convert.decode(types_pb2.Containment(), convert.commands.Receipt)
