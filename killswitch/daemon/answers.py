"""What earlier daemons answered to orders, from the ledger: the control plane's memory."""

from __future__ import annotations

import base64
import binascii
import logging

from killswitch.control.orders import REMEMBERED
from killswitch.control.remembered import Given
from killswitch.daemon.records import Records
from killswitch.errors import LedgerError

log = logging.getLogger("killswitch.orders")


class Answers:
    def __init__(self, records: Records) -> None:
        self._records = records
        self._before = records.request_ids(REMEMBERED)  # so that a new order need not wait for the disk

    async def recall(self, request_id: str) -> Given | None:
        if request_id not in self._before:
            return None
        try:
            record = await self._records.order_of(request_id)
            if record is None or (record.outcome == "failed" and not record.answer):
                return None
            answer = base64.b64decode(record.answer, validate=True) if record.answer else None
        except (LedgerError, binascii.Error) as e:
            log.error("the answer to request_id %r cannot be read: %s", request_id, e)
            return Given("", None)
        return Given(record.content, answer)

    async def keep(self, request_id: str, given: Given) -> None:
        if given.answer is not None:
            await self._records.answered(request_id, given.content, base64.b64encode(given.answer).decode())
