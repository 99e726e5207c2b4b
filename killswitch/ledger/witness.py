"""A second, small record of what matters most, apart from the database: what is to be contained, and where the audit ended.

SQLite takes a damaged write-ahead log for one that ends earlier: what came behind is gone, and nobody says so. So is a
database that somebody removed. This file, written anew and whole whenever desired containment has changed, is compared with
what the database tells when it is opened: of the two the stricter wins, and an audit that ends before it is a loss.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from killswitch.errors import LedgerError
from killswitch.ledger import audit, codec
from killswitch.ledger.records import Desired

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Witness:
    seq: int  # of the audit's last entry when this was written
    head: str  # and its hash
    last_incident: int  # the highest number that was given out
    desired: Mapping[str, Desired]  # by cgroup path


def place(ledger: Path) -> Path:
    return ledger.with_name("contained.json")


def write(ledger: Path, witness: Witness) -> None:
    """Whole or not at all, and on disk when this returns. Raises OSError."""
    body = {
        "format": FORMAT,
        "seq": witness.seq,
        "head": witness.head,
        "last_incident": witness.last_incident,
        "desired": [json.loads(codec.dumps(d)) for d in witness.desired.values()],
    }
    text = json.dumps({**body, "sha256": _digest(body)}, indent=1, sort_keys=True) + "\n"
    target = place(ledger)
    beside = target.with_name(f"{target.name}.new")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError:
        with contextlib.suppress(OSError):  # on a full disk it is what can be spared first
            beside.unlink()
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(ledger: Path) -> tuple[Witness | None, str]:
    """(what it says, why it says nothing); (None, "") when there is none."""
    path = place(ledger)
    try:
        body = json.loads(path.read_bytes())
        if body.pop("sha256") != _digest(body):
            return None, f"{path}: is damaged: its digest is another one"
        desired = (codec.loads(json.dumps(row), Desired) for row in body["desired"])
        known = {d.cgroup: d for d in desired}
        return Witness(int(body["seq"]), str(body["head"]), int(body["last_incident"]), known), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, LedgerError) as error:
        return None, f"{path}: cannot be read: {error}"


def stricter(known: Mapping[str, Desired], witness: Witness) -> dict[str, Desired]:
    """What the witness knows to be contained, and ``known`` does not, or less so; as it is to be."""
    missing = {}
    for cgroup, told in witness.desired.items():
        have = known.get(cgroup)
        if have is None:
            missing[cgroup] = told
        elif have.containment | told.containment != have.containment:
            missing[cgroup] = replace(have, containment=have.containment | told.containment)
    return missing


def loss(connection: sqlite3.Connection, witness: Witness) -> str:
    """Why the audit cannot be the one that the witness saw, "" = it can. Raises sqlite3.Error."""
    folded, _ = audit.checkpoint(connection)
    (last,) = connection.execute("SELECT max(seq) FROM audit").fetchone()
    last = max(last or 0, folded)
    if last < witness.seq:
        return f"the last {witness.seq - last:,} entries of its audit, or more, are lost, and what they tell of"
    if witness.seq <= folded:
        return ""
    row = connection.execute("SELECT hash FROM audit WHERE seq = ?", (witness.seq,)).fetchone()
    if row is None or row[0] != witness.head:
        return f"entry {witness.seq} of its audit is another one than was written: it is not the same ledger"
    return ""


def _digest(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()
