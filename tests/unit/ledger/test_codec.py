"""Into the ledger and back, without loss: whatever a workload may have chosen."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from killswitch import commands
from killswitch.errors import LedgerError
from killswitch.ledger import Desired, IncidentRecord, OrderRecord, WorkloadRecord, codec
from tests.unit.control.strategies import EVENTS, whole
from tests.unit.ledger.make import finding

KEPT = (commands.Finding, commands.Receipt, WorkloadRecord, Desired, IncidentRecord, OrderRecord)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(*(whole(cls) for cls in KEPT), EVENTS))
def test_every_record_survives(record: object) -> None:
    text = codec.dumps(record)
    assert text.isascii()
    assert codec.loads(text, type(record)) == record
    assert codec.dumps(codec.loads(text, type(record))) == text  # the digest of a record never changes by itself


def test_a_field_that_an_older_release_did_not_write_takes_its_default() -> None:
    text = codec.dumps(finding()).replace('"verdict_ns":31,', "").replace('"act":null,', "")
    assert "verdict_ns" not in text and '"act"' not in text
    read = codec.loads(text, commands.Finding)
    assert (read.verdict_ns, read.act) == (0, None)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"type":"Nothing"}'])
def test_what_is_no_record_is_a_ledger_error(text: str) -> None:
    with pytest.raises(LedgerError, match="is no Finding"):
        codec.loads(text, commands.Finding)
