"""Sign where every chain of evidence stands: one more statement, or none where nothing went on since the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from broker.errors import ConflictError
from broker.evidence.heads import SignedStatement, Statement, newest_heads, verify_statements
from broker.evidence.statements import AnchorKey, StoredStatement, VerifyingKey, opened
from broker.model.chain import GENESIS, Entry, Head, verify
from broker.model.clock import Clock
from broker.model.finding import Finding, has_errors, refuse_errors

__all__ = ["Anchored", "Chains", "Kept", "Statements", "anchor"]

ATTEMPTS: Final = 8
LARGEST: Final = 4096  # chains in one statement: half a megabyte, and Vault on raft takes one


@dataclass(frozen=True, slots=True)
class Kept:
    """Entries of a chain as they are stored, and what could not be read."""

    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...] = ()


class Chains(Protocol):
    """The chains that are stored."""

    def chains(self) -> Iterable[str]:
        """Return the names of all chains."""

    def kept(self, chain: str, *, since: int = 1) -> Kept:
        """Return the entries of `chain` from number `since` on, in the order of their places."""


class Statements(Protocol):
    """The signed statements, written once each."""

    def statements(self) -> tuple[StoredStatement, ...]:
        """Return all of them, in the order of their places."""

    def add(self, statement: StoredStatement) -> None:
        """Store `statement` at its place; raise `ConflictError` where one is."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """What was signed: the numbers of new statements, the newest there is, and the chains it was refused for."""

    made: tuple[int, ...]
    newest: int
    key: VerifyingKey
    findings: tuple[Finding, ...]


def anchor(key: AnchorKey, statements: Statements, chains: Chains, clock: Clock) -> Anchored:
    """Write the next statement. Two at once sign nothing twice; a killed run leaves a statement or none.

    A chain that no longer passes through the head that was signed, or does not hold together since, keeps its old
    head and is reported, so that to damage one chain does not stop the others. Raise `FindingsError` where the
    statements themselves are damaged: to sign on top of them would make them look whole.
    """
    made: list[int] = []
    conflicts = 0
    while conflicts < ATTEMPTS:
        signed = _sound(statements.statements(), key.verifying)
        moved, findings = _moved(newest_heads(signed), chains)
        if not moved:
            return Anchored(tuple(made), len(signed), key.verifying, findings)
        before = signed[-1].hash if signed else GENESIS
        heads = dict(islice(sorted(moved.items()), LARGEST))
        statement = Statement(len(signed) + 1, clock(), heads, before)
        try:
            statements.add(key.signed(statement))
        except ConflictError:  # another run, or this one's own write whose answer was lost: look again
            conflicts += 1
        else:
            made.append(statement.number)
    raise ConflictError("others kept signing at the same time", hint="one run an hour is plenty")


def _sound(stored: Sequence[StoredStatement], key: VerifyingKey) -> tuple[SignedStatement, ...]:
    signed, faults = opened(stored, key)
    refuse_errors("the signed statements", (*faults, *verify_statements(signed)))
    return signed


def _moved(signed: dict[str, Head], chains: Chains) -> tuple[dict[str, Head], tuple[Finding, ...]]:
    moved: dict[str, Head] = {}
    findings: list[Finding] = []
    for chain in sorted({*chains.chains(), *signed}):
        start = signed.get(chain, Head())
        kept = chains.kept(chain, since=max(start.number, 1))
        faults = [*kept.findings, *_faults(chain, kept.entries, start)]
        findings += faults
        newest = kept.entries[-1:]
        if newest and newest[0].number > start.number and not has_errors(faults):
            moved[chain] = Head(newest[0].number, newest[0].hash)
    return moved, tuple(findings)


def _faults(chain: str, entries: Sequence[Entry], start: Head) -> tuple[Finding, ...]:
    if start == Head():
        return verify(chain, entries)
    first = entries[0] if entries else None
    if first is None or Head(first.number, first.expected_hash) != start:
        message = f"{chain} no longer has the entry {start.number} that was signed: it was cut, or written anew"
        return (Finding.error("evidence.forked", message, "broker evidence verify --all says where"),)
    return verify(chain, entries[1:], start=start)
