"""Open an account, and name its applications."""

from __future__ import annotations

from broker.errors import ConflictError
from broker.model.account import Account
from broker.model.changes import added, application_removed, application_set
from broker.model.clock import Clock
from broker.model.names import AccountName
from broker.rotation.amend import amend, amend_and_tell
from broker.rotation.ports import Accounts, Version

__all__ = ["add_account", "add_application", "remove_application", "set_application"]


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


def add_application(
    name: AccountName, application: str, client_id: str, *, accounts: Accounts, clock: Clock, by: str
) -> Account:
    """Add an application; raise `ConflictError` where it is there with another client_id. "" leaves the one it has."""

    def add(account: Account) -> Account:
        there = next((a for a in account.applications if a.name == application), None)
        if there and client_id and there.client_id != client_id:
            raise ConflictError(
                f"{name}/{application} is there already, with another client_id",
                hint=f"broker app set {name}/{application} --client-id ID changes it",
            )
        return application_set(account, application, client_id, at=clock(), by=by)

    return amend(accounts, name, add)


def set_application(
    name: AccountName, application: str, client_id: str, *, accounts: Accounts, clock: Clock, by: str
) -> bool:
    """Give an application another client_id; return whether that was left to do.

    Raise `UnknownNameError` where there is no such application, or none any more.
    """

    def change(account: Account) -> Account:
        account.application(application)
        return application_set(account, application, client_id, at=clock(), by=by)

    return amend_and_tell(accounts, name, change)


def remove_application(name: AccountName, application: str, *, accounts: Accounts, clock: Clock, by: str) -> Account:
    """Remove an application; nothing to do where it is gone."""
    return amend(accounts, name, lambda account: application_removed(account, application, at=clock(), by=by))
