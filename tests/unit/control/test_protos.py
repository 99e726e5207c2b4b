"""The style of the protos, as buf's STANDARD lint and etcd's hold it: names, comments, zero values, a message an rpc."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from killswitch.control import roles
from killswitch.v1 import event_pb2, killswitch_service_pb2, types_pb2

PROTOS = Path(__file__).parents[3] / "protos" / "killswitch" / "v1"
FILES = (event_pb2.DESCRIPTOR, types_pb2.DESCRIPTOR, killswitch_service_pb2.DESCRIPTOR)
DECLARES = re.compile(
    r"^\s*(rpc|message|enum|oneof|service)\s+\w+|^\s*(repeated |optional |map<.*> )?[\w.]+ \w+ = \d+;|^\s*[A-Z_]+ = \d+;"
)


@pytest.mark.parametrize("path", sorted(PROTOS.glob("*.proto")), ids=lambda p: p.name)
def test_everything_that_is_declared_has_a_comment(path: Path) -> None:
    lines = path.read_text().splitlines()
    bare = [
        f"{path.name}:{n + 1}: {line}"
        for n, line in enumerate(lines)
        if DECLARES.match(line) and "//" not in lines[n - 1]
    ]
    assert not bare
    assert sum(bool(DECLARES.match(line)) for line in lines) > 50  # the pattern does find them


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_enum_values_carry_the_enum_s_name_and_zero_is_unspecified(file: object) -> None:
    for name, enum in file.enum_types_by_name.items():  # type: ignore[attr-defined]
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
        assert all(value.name.startswith(f"{prefix}_") for value in enum.values)


def test_each_rpc_has_messages_of_its_own_named_after_it() -> None:
    service = killswitch_service_pb2.DESCRIPTOR.services_by_name["KillSwitchService"]
    for method in service.methods:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"


def test_each_rpc_is_either_a_read_or_an_order() -> None:
    service = killswitch_service_pb2.DESCRIPTOR.services_by_name["KillSwitchService"]
    assert {method.name for method in service.methods} == roles.READS | roles.ORDERS
    assert not roles.READS & roles.ORDERS


def test_each_order_carries_a_request_id_and_a_reason_and_no_read_does() -> None:
    service = killswitch_service_pb2.DESCRIPTOR.services_by_name["KillSwitchService"]
    for method in service.methods:
        carries = {"request_id", "reason"} <= set(method.input_type.fields_by_name)
        assert carries is (method.name in roles.ORDERS), method.name
