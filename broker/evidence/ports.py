"""Read and write stored evidence: chains of entries, and the statements that sign them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from broker.evidence.statements import StoredStatement, VerifyingKey
from broker.model.account import Account
from broker.model.chain import Entry, Head
from broker.model.finding import Finding
from broker.model.names import AccountName

__all__ = ["ChainRecord", "Chains", "ReadAccount", "StatementStore", "Statements"]

ReadAccount = Callable[[AccountName], Account]  # raises UnknownNameError


@dataclass(frozen=True, slots=True)
class ChainRecord:
    """One chain as it is stored, and what could not be read; `head` is the account document's, None without one."""

    entries: tuple[Entry, ...]
    head: Head | None = None
    findings: tuple[Finding, ...] = ()


class Chains(Protocol):
    """The stored chains."""

    def chains(self) -> Iterable[str]:
        """Return the names of all chains."""

    def kept(self, chain: str, *, since: int = 1) -> ChainRecord:
        """Return the entries of `chain` from number `since` on, in the order of their places."""


class Statements(Protocol):
    """The stored statements, and the key that verifies them."""

    def statements(self) -> tuple[StoredStatement, ...]:
        """Return all statements, in the order of their places."""

    def verifying_key(self) -> VerifyingKey | None:
        """Return the public key, None if nothing was signed yet."""


class StatementStore(Statements, Protocol):
    """The stored statements, each written once."""

    def add(self, statement: StoredStatement) -> None:
        """Store `statement` at its place; raise `ConflictError` if the place is taken."""
