"""Know the partner's server by another CA, and make the candidate that tries it."""

from __future__ import annotations

from collections.abc import Sequence

from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.changes import trust_set
from broker.model.clock import Clock
from broker.model.names import AccountName
from broker.pki.certificates import anchors
from broker.pki.reply import ReplyParts, read_reply
from broker.rotation.amend import amend
from broker.rotation.ports import Accounts

__all__ = ["set_trust"]


def set_trust(
    name: AccountName, data: bytes, accept: Sequence[str], *, accounts: Accounts, clock: Clock, by: str
) -> Account:
    """Know the server by the CAs in `data` that a person accepts by their SHA-256 fingerprints, and by no others.

    The same a second time changes nothing. Raise `InputError` for data that cannot be read, and `RefusedError` where
    it holds no CA of such a fingerprint, or where none is accepted.
    """
    parts = read_reply(data)
    if not accept:
        raise RefusedError("nobody has accepted a CA to know the partner's server by", hint=_offered(parts))
    trust = anchors("".join(parts.accepted(fingerprint).pem for fingerprint in accept))
    return amend(accounts, name, lambda account: trust_set(account, trust, at=clock(), by=by))


def _offered(parts: ReplyParts) -> str:
    found = "; ".join(d.named for d in parts.authorities)
    if not found:
        return "there is no CA certificate in this file: ask the partner for the one its server's is signed by"
    return f"compare fingerprints with the partner by another way, then: --accept-ca SHA256. The file has {found}"
