"""Draft a signing request, and close one that will not be answered."""

from __future__ import annotations

from broker.errors import ConflictError, RefusedError, UnknownNameError
from broker.model.account import Account
from broker.model.changes import closed, requested
from broker.model.clock import Clock
from broker.model.generation import Closed, SigningRequest
from broker.model.names import AccountName
from broker.model.subject import KeyRules
from broker.rotation.amend import amend
from broker.rotation.ports import Accounts, Keys

__all__ = ["close_request", "draft"]


def draft(
    name: AccountName, rules: KeyRules, *, accounts: Accounts, keys: Keys, clock: Clock, by: str
) -> SigningRequest:
    """Return the account's open signing request, making one if it has none.

    Two writes, in this order and no other: the key into the next free slot, then the account with the CSR in it. A
    CSR is shown only as stored in the account. Killed between the two, the next run adopts the key in the slot; two
    at once share the slot's key, and the one that loses the account returns the winner's CSR, or raises
    `ConflictError` where that has been closed since.
    """
    seen = accounts.read(name).account
    if seen.open_request:
        return seen.open_request
    slot, now = seen.next_request, clock()  # a wrong clock is refused here, before a key is stored
    try:
        key, spki = keys.ensure(name, slot, rules)
        csr = keys.sign_request(name, key, seen.subject, rules)
    except (RefusedError, UnknownNameError):
        _refuse_overtaken(accounts.read(name).account, slot)  # then the key is gone, and that is no fault
        raise
    request = SigningRequest(slot, key, spki, csr, drafted_at=now)

    def add(account: Account) -> Account:
        return account if account.next_request > slot else requested(account, request, by=by)

    after = amend(accounts, name, add)
    _refuse_overtaken(after, slot)
    return after.request(slot)


def _refuse_overtaken(account: Account, slot: int) -> None:
    closed = account.request(slot).closed if account.next_request > slot else None
    if closed:
        raise ConflictError(
            f"signing request {slot} of {account.name} was drafted by another and {closed.value} meanwhile",
            hint="the same command again begins a new one",
        )


def close_request(
    name: AccountName, why: Closed, number: int = 0, *, accounts: Accounts, clock: Clock, by: str
) -> SigningRequest:
    """Close request `number`, or the open one. Its key is destroyed when the account is settled."""
    account = accounts.read(name).account
    if not number:
        if account.open_request is None:
            raise RefusedError(f"{name} has no open signing request", hint=f"broker csr new {name} makes one")
        number = account.open_request.number
    return amend(accounts, name, lambda newest: closed(newest, number, why, at=clock(), by=by)).request(number)
