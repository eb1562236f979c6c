"""The one way an account changes: a pure change under compare-and-set, then its evidence and destructions."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from msgspec import Struct

from broker.errors import PartlyUnavailableError, VaultUnavailableError
from broker.model.account import Account
from broker.model.chain import Entry
from broker.model.changes.moving import settled
from broker.model.clock import Clock, Stamp
from broker.model.compare_and_set import compare_and_set
from broker.model.names import AccountName
from broker.rotation.ports import (
    Accounts,
    EvidenceLog,
    ForkedEvidenceError,
    Keys,
    Secrets,
    Settle,
    SlotTakenError,
    Version,
)

T = TypeVar("T")
_SLOTS: Final = 16  # to try; killed commands may have taken the first ones


class Amended(Struct, frozen=True):
    """The newest account. `changed` is false if nothing was left to do."""

    account: Account
    changed: bool


class UseCase(Struct, frozen=True):
    """The ports that `Registry` and `Rotation` share, and stamped changes through them."""

    accounts: Accounts
    settle: Settle
    clock: Clock
    actor: str

    def stamp(self) -> Stamp:
        """Return the time now and the actor."""
        return Stamp(self.clock(), self.actor)

    def seen(self, name: AccountName) -> Account:
        """Return the newest account; raise `UnknownNameError`, or `RefusedError` if it was removed."""
        return self.accounts.read(name).account.kept()

    def amend(self, name: AccountName, change: Callable[[Account, Stamp], Account]) -> Amended:
        """Apply `change` with a stamp, as the function `amend` does."""
        return amend(self.accounts, name, lambda account: change(account.kept(), self.stamp()))

    def settled(self, name: AccountName, change: Callable[[Account, Stamp], Account]) -> Amended:
        """Apply `change` with a stamp, then settle."""
        done = self.amend(name, change)
        self.settle(name)
        return done

    def in_free_slot(self, name: AccountName, first: int, store: Callable[[int], T]) -> tuple[int, T]:
        """Call `store` with `first` and the numbers after it until one is free; return the number and the result.

        It passes over keys of killed commands. Raise `SlotTakenError` if the account got a request meanwhile.
        """
        for number in range(first, first + _SLOTS):
            try:
                return number, store(number)
            except SlotTakenError:
                if self.accounts.read(name).account.next_request != first:
                    raise
        raise SlotTakenError(name, first)

    @contextmanager
    def settling(self, name: AccountName) -> Iterator[None]:
        """Settle when the body ends, also by an error, which takes precedence over an error of settling.

        If Vault is away, a later command settles: it is not waited for twice.
        """
        try:
            yield
        except BaseException as error:
            if not isinstance(error, VaultUnavailableError) or isinstance(error, PartlyUnavailableError):
                with suppress(ForkedEvidenceError):
                    self.settle(name)
            raise
        self.settle(name)


def amend(accounts: Accounts, name: AccountName, change: Callable[[Account], Account]) -> Amended:
    """Apply the pure `change` to the newest account and store the result, as `compare_and_set` does."""
    changed = False

    def read() -> tuple[Account, Version]:
        seen = accounts.read(name)
        return seen.account, seen.version

    def tracked(account: Account) -> Account:
        nonlocal changed
        after = change(account)
        changed = after != account  # the last run counts: others may have done it first
        return after

    return Amended(compare_and_set(name, read, accounts.write, accounts.landed, tracked), changed)


def settle(
    name: AccountName,
    *,
    accounts: Accounts,
    log: EvidenceLog,
    keys: Keys | None = None,
    secrets: Secrets | None = None,
) -> Account:
    """Store the evidence in the account's outbox, and destroy its doomed keys and secrets. Safe to kill and run again.

    A role that may not destroy secrets passes no `keys` or `secrets`; they stay doomed. Nothing is destroyed before its
    evidence is stored, unless another entry has taken its place: a forged entry must not keep secrets alive. Then
    raise `ForkedEvidenceError`, after everything else is done.
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
    after = amend(accounts, name, lambda newest: settled(newest, stored, doomed_keys, doomed_secrets)).account
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
