"""Open an account, and name its applications."""

from __future__ import annotations

from broker.errors import ConflictError
from broker.model.account import Account
from broker.model.changes import added, application_removed, application_set
from broker.model.clock import Clock
from broker.model.names import AccountName
from broker.rotation.amend import amend
from broker.rotation.ports import Accounts, Version

__all__ = ["add_account", "remove_application", "set_application"]


def add_account(account: Account, *, accounts: Accounts, by: str) -> Account:
    """Store a new account. The same one a second time returns what is stored; another of its name is a conflict."""
    first = added(account, by=by)
    try:
        accounts.write(first, replacing=Version(0))
    except ConflictError:
        stored = accounts.read(account.name).account
        if _same(stored, account):
            return stored
        raise ConflictError(
            f"there is an account {account.name} already, for login {stored.login} at {stored.base_url}",
            hint=f"broker account show {account.name}",
        ) from None
    return first


def _same(stored: Account, wanted: Account) -> bool:
    fields = ("profile", "environment", "login", "base_url", "subject", "contacts")
    return all(getattr(stored, name) == getattr(wanted, name) for name in fields)


def set_application(
    name: AccountName, application: str, client_id: str, *, accounts: Accounts, clock: Clock, by: str
) -> Account:
    """Add an application, or give it another client_id; "" leaves the one it has."""
    return amend(accounts, name, lambda account: application_set(account, application, client_id, at=clock(), by=by))


def remove_application(name: AccountName, application: str, *, accounts: Accounts, clock: Clock, by: str) -> Account:
    """Remove an application; nothing to do where it is gone."""
    return amend(accounts, name, lambda account: application_removed(account, application, at=clock(), by=by))
