"""The one way an account changes: a pure change under compare-and-set, and the business that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from broker.model.account import Account
from broker.model.chain import Entry
from broker.model.changes import settled
from broker.model.compare_and_set import compare_and_set
from broker.model.names import AccountName
from broker.rotation.ports import Accounts, EvidenceLog, ForkedEvidenceError, Keys, Secrets, Version

__all__ = ["amend", "amend_and_tell", "settle"]


def amend(accounts: Accounts, name: AccountName, change: Callable[[Account], Account]) -> Account:
    """Apply the pure `change` to the newest account and store the outcome, as `compare_and_set` does."""

    def read() -> tuple[Account, int]:
        seen = accounts.read(name)
        return seen.account, seen.version

    def write(account: Account, version: int) -> None:
        accounts.write(account, replacing=Version(version))

    def landed(account: Account, version: int) -> bool:
        return accounts.landed(account, replacing=Version(version))

    return compare_and_set(name, read, write, landed, change)


def amend_and_tell(accounts: Accounts, name: AccountName, change: Callable[[Account], Account]) -> bool:
    """Amend as `amend` does; return whether anything was left to do, which is so where only the answer was lost."""
    changed = False

    def told(account: Account) -> Account:
        nonlocal changed
        after = change(account)
        changed = after != account  # the last run counts: others may have done it first
        return after

    amend(accounts, name, told)
    return changed


def settle(
    name: AccountName,
    *,
    accounts: Accounts,
    log: EvidenceLog,
    keys: Keys | None = None,
    secrets: Secrets | None = None,
) -> Account:
    """Do what the account says must still follow. Killed anywhere and run again, it loses and doubles nothing.

    A role that may not destroy secrets passes no `keys` or `secrets`: that part waits for one that may. Nothing is
    destroyed before its evidence is stored, unless another entry has taken its place: whoever put it there shall not
    keep secrets alive by it. Raise `ForkedEvidenceError` then, once all the rest is done.
    """
    account = accounts.read(name).account
    doomed_keys = account.doomed_keys if keys else frozenset()
    doomed_secrets = account.doomed_secrets if secrets else frozenset()
    if not account.outbox and not doomed_keys and not doomed_secrets:
        return account
    stored, fork = _stored(account.outbox, log)
    for key in doomed_keys:
        if keys:
            keys.destroy(name, key)
    for ref in doomed_secrets:
        if secrets:
            secrets.destroy(name, ref)
    after = amend(accounts, name, lambda newest: settled(newest, stored, doomed_keys, doomed_secrets))
    if fork:
        raise fork
    return after


def _stored(entries: Iterable[Entry], log: EvidenceLog) -> tuple[list[Entry], ForkedEvidenceError | None]:
    """Store `entries` up to the first whose place another has taken; return those that are stored, and the fork."""
    stored: list[Entry] = []
    for entry in entries:
        try:
            log(entry)
        except ForkedEvidenceError as fork:
            return stored, fork
        stored.append(entry)
    return stored, None
