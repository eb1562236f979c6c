"""The keys that sign leases, in one document: made by the first broker, rotated by a person or a timer.

A key that is no longer the newest verifies for as long as a lease lasts, and is destroyed by the next rotation. Old
versions of the document hold old keys, so only its newest version is kept.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Struct

from broker.errors import RefusedError
from broker.issuing.leases import LeaseSigner
from broker.model.lease import LONGEST, SKEW
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DAMAGED_HINT, decoded, encoded, enveloped, in_base64
from broker.vault.errors import Document

OVERLAP: Final = LONGEST + SKEW + timedelta(minutes=5)  # for leases signed by a replica that has not read the new key
YOUNG: Final = timedelta(days=1)  # so that a timer, and a command run again, rotate once
_OCTETS: Final = 32  # HS256 wants as many as its hash has (RFC 7518, 3.2)
_PATH: Final = layout.signer("lease")
_Kid = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")]
_WHERE: Final = "the document of the keys that sign leases"


class LeaseKeys(Struct, frozen=True):
    """The keys after a rotation, by `kid`: the one that signs since `made`, and the ends of the others."""

    newest: str
    made: datetime
    ends: Mapping[str, datetime]
    changed: bool


@dataclass(frozen=True, slots=True)
class _Stored:
    newest: str
    keys: Mapping[_Kid, Annotated[bytes, msgspec.Meta(min_length=_OCTETS)]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Rotated(_Stored):
    made: datetime  # the newest key
    ends: Mapping[str, datetime]  # of the others


def lease_signer(vault: Connection, now: datetime) -> LeaseSigner:
    """Return the keys that sign leases, making the first. Two brokers that start together use the same."""

    def make() -> Document:
        return enveloped({"newest": "1", "keys": {"1": in_base64(secrets.token_bytes(_OCTETS))}})

    found = _read(vault.adopt(_PATH, make))
    ended = {kid for kid, end in _ends(found).items() if end <= now}
    return LeaseSigner(found.newest, {kid: Secret(key) for kid, key in found.keys.items() if kid not in ended})


def rotate_lease_key(vault: Connection, now: datetime, *, again: bool) -> LeaseKeys:
    """Make a new key, unless the newest is less than a day old, and destroy keys that have ended.

    `again` makes one nevertheless. Killed anywhere and run again, it finishes. Raise `RefusedError` if no lease was
    ever signed.
    """
    new = Secret(secrets.token_bytes(_OCTETS))
    before: str | None = None

    def changed(document: Document | None) -> Document:
        nonlocal before
        if document is None:
            raise RefusedError("no lease was signed yet, so there is no key", hint="the first bundle makes it")
        seen = _read(document)
        before = seen.newest
        return encoded(_rotated(seen, new, now, again=again))

    found = _read(vault.change(_PATH, changed))
    vault.destroy_older(_PATH)
    made = found.made if isinstance(found, _Rotated) else now
    return LeaseKeys(found.newest, made, _ends(found), changed=found.newest != before)


def _read(document: Document) -> _Stored:
    value = document.get("value")
    rotated = isinstance(value, Mapping) and "made" in value
    found: _Stored = decoded(document, _Rotated, _WHERE) if rotated else decoded(document, _Stored, _WHERE)
    if found.newest not in found.keys:
        raise RefusedError("the newest of the keys that sign leases is missing", hint=DAMAGED_HINT)
    return found


def _rotated(seen: _Stored, new: Secret[bytes], now: datetime, *, again: bool) -> _Stored:
    ends = dict(_ends(seen))
    if isinstance(seen, _Rotated) and seen.made > now - YOUNG and not again:
        newest, made, added = seen.newest, seen.made, dict[str, bytes]()
    else:
        newest = str(max(int(kid) for kid in seen.keys) + 1)
        made, added = now, {newest: new.reveal()}
        ends[seen.newest] = now + OVERLAP
    alive = {kid: key for kid, key in seen.keys.items() if kid not in ends or ends[kid] > now}
    return _Rotated(newest, alive | added, made, {kid: end for kid, end in ends.items() if kid in alive})


def _ends(found: _Stored) -> Mapping[str, datetime]:
    return found.ends if isinstance(found, _Rotated) else {}
