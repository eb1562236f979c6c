"""Changes of a key that others know: it is reported, and later its certificate is confirmed dead."""

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.changes.moving import moved
from broker.model.changes.registering import suspended
from broker.model.changes.writing import recorded, with_request_closed
from broker.model.clock import Stamp
from broker.model.generation import Closed, Halt, KeyRef
from broker.model.history import Event
from broker.model.stage import Move


def compromised(account: Account, reason: str, stamp: Stamp, *, suspend: bool) -> Account:
    """Record that others know the key of the current generation; with `suspend`, issue no bundles.

    An open request and candidates with this key are closed and rejected. A request with another key stays open.
    """
    key = _current_key(account)
    if not account.compromise_of(key):
        account = _reported(account, key, reason, stamp)
    return suspended(account, reason, stamp) if suspend else account


def _current_key(account: Account) -> KeyRef:
    if account.current:
        return account.current.parts.key
    end = f"broker csr cancel {account.name} destroys the key of the open request"
    raise RefusedError(
        f"{account.name} has no current generation, so no consumer has its key",
        hint=end if account.open_request else f"broker status {account.name}",
    )


def _reported(account: Account, key: KeyRef, reason: str, stamp: Stamp) -> Account:
    known = Halt(stamp.at, reason)
    requests = tuple(replace(r, compromised=known) if r.key == key else r for r in account.requests)
    after = recorded(replace(account, requests=requests), stamp, Event.KEY_COMPROMISED, key=key, reason=reason)
    if after.open_request and after.open_request.key == key:
        after = with_request_closed(after, after.open_request, Closed.SUPERSEDED, stamp)
    for candidate in after.candidates:
        if candidate.parts.key == key:
            after = moved(after, candidate.number, Move.REJECT, stamp, "others know its key")
    return after


def certificate_revoked(account: Account, number: int, reason: str, stamp: Stamp) -> Account:
    """Record that the partner no longer takes the certificate of generation `number`, whose key others know."""
    key = account.parts_of(account.generation(number)).key
    known = [r for r in account.requests if r.key == key and r.compromised]
    if not known:
        raise RefusedError(
            f"nobody reported that others know the key of generation {number} of {account.name}",
            hint=f"broker rotation status {account.name} shows which generations are compromised",
        )
    if all(r.revoked_at for r in known):
        return account
    if account.current and account.current.parts.key == key:
        raise RefusedError(
            f"generation {account.current.number} of {account.name} is current, and has this certificate",
            hint=f"broker status {account.name} shows the step that replaces it",
        )
    requests = tuple(replace(r, revoked_at=stamp.at) if r in known else r for r in account.requests)
    facts = {"reason": reason} if reason else {}
    return recorded(replace(account, requests=requests), stamp, Event.CERTIFICATE_REVOKED, key=key, **facts)
