"""Store a new password of the partner's, and make the candidate that tries it."""

from __future__ import annotations

from broker.errors import ConflictError
from broker.model.account import Account
from broker.model.changes import password_set
from broker.model.clock import Clock
from broker.model.generation import PasswordRef
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.rotation.amend import amend
from broker.rotation.ports import Accounts, Passwords

__all__ = ["set_password"]

SLOTS = 16  # taken by commands that were killed, one after another, before they could say so


def set_password(
    name: AccountName, password: Secret[str], *, accounts: Accounts, passwords: Passwords, clock: Clock, by: str
) -> Account:
    """Store `password` in the next free slot, then name it in the account: two writes, in this order.

    A slot that is taken was written by a command that was killed before its second write, or by one that runs now;
    nobody here may read it to tell. So it is passed over, and doomed by the change that names the next.
    """
    seen, now = accounts.read(name).account, clock()  # a wrong clock is refused here, before the password is stored
    slot = _stored(seen, password, passwords)
    return amend(accounts, name, lambda account: password_set(account, slot, at=now, by=by))


def _stored(account: Account, password: Secret[str], passwords: Passwords) -> PasswordRef:
    first = account.next_password
    for slot in range(first, first + SLOTS):
        try:
            passwords.store(account.name, PasswordRef(slot), password)
        except ConflictError:
            continue
        return PasswordRef(slot)
    raise ConflictError(f"password slots {first} to {first + SLOTS - 1} of {account.name} are all taken")
