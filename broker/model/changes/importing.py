"""Changes of keys that were made outside: they are adopted, and copies of them are noted until they are gone."""

from collections.abc import Iterable

from broker.copies import replace
from broker.errors import ConflictError, UnknownNameError
from broker.model.account import Account
from broker.model.chain import Fact
from broker.model.changes.requesting import opened
from broker.model.changes.writing import recorded, swapped
from broker.model.clock import Stamp
from broker.model.generation import SigningRequest
from broker.model.history import Event


def adopted(account: Account, request: SigningRequest, *, by: str, **facts: Fact) -> Account:
    """Open `request`, whose key was made outside, unless the key is in use or was; raise `ConflictError`.

    A key whose request was cancelled, rejected or superseded is adopted again, under a new number.
    """
    if account.request_of(request.spki):
        return account
    if account.next_request > request.number:
        raise ConflictError(
            f"{account.name} got signing request {request.number} meanwhile",
            hint=f"the same command again; broker csr show {account.name} shows the open request",
        )
    return opened(account, request, by=by, **facts, origin="imported, known outside")


def copies_noted(account: Account, number: int, holders: Iterable[str], stamp: Stamp) -> Account:
    """Note that `holders` have copies of the key of request `number` outside."""
    for holder in holders:
        request = account.request(number)
        if holder not in request.held_by:
            after = replace(request, held_by=(*request.held_by, holder))
            account = replace(account, requests=swapped(account.requests, request, after))
            account = recorded(account, stamp, Event.COPY_NOTED, request=number, key=request.key, holder=holder)
    return account


def copy_gone(account: Account, holder: str, reason: str, stamp: Stamp) -> Account:
    """Record that `holder` has no copy of any key of the account any more; raise `UnknownNameError` if it had none."""
    requests = [r for r in account.requests if holder in r.held_by]
    if not requests:
        known = sorted({repr(h) for r in account.requests for h in r.held_by})
        raise UnknownNameError(
            f"{account.name} has no copies noted with {holder!r}",
            hint=f"--held-by takes one of: {', '.join(known)}" if known else "no copy is noted: nothing to do",
        )
    for request in requests:
        left = replace(request, held_by=tuple(h for h in request.held_by if h != holder))
        account = replace(account, requests=swapped(account.requests, request, left))
        facts = {"reason": reason} if reason else {}
        account = recorded(account, stamp, Event.COPY_GONE, request=request.number, holder=holder, **facts)
    return account
