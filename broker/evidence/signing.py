"""Sign the head of every chain of evidence: in one more statement, or in none if nothing is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from broker.errors import ConflictError
from broker.evidence.ports import Chains, StatementStore
from broker.evidence.statements import AnchorKey, Statement, VerifyingKey, newest_heads, verified
from broker.model.chain import GENESIS, Entry, Head, verify
from broker.model.clock import Clock
from broker.model.finding import Finding, has_errors, refuse_errors

__all__ = ["Anchored", "anchor"]

ATTEMPTS: Final = 8
LARGEST: Final = 4096  # chains in one statement: half a megabyte, which Vault on raft accepts


@dataclass(frozen=True, slots=True)
class Anchored:
    """The result of signing: numbers of new statements, of the newest, and why a chain was not signed."""

    made: tuple[int, ...]
    newest: int
    key: VerifyingKey
    findings: tuple[Finding, ...]


def anchor(key: AnchorKey, store: StatementStore, chains: Chains, clock: Clock) -> Anchored:
    """Write the next statement. Concurrent runs sign nothing twice; a killed run leaves a statement or none.

    A chain that lacks the head signed before, or does not hold together since, keeps its old head and is reported, so
    that one damaged chain does not stop the others. Raise `FindingsError` if the statements themselves are damaged:
    signing after them would make them look whole.
    """
    made: list[int] = []
    conflicts = 0
    while conflicts < ATTEMPTS:
        signed, faults = verified(store.statements(), key.verifying)
        refuse_errors("the signed statements", faults)
        moved, findings = _moved(newest_heads(signed), chains)
        if not moved:
            return Anchored(tuple(made), len(signed), key.verifying, findings)
        heads = dict(islice(sorted(moved.items()), LARGEST))
        statement = Statement(len(signed) + 1, clock(), heads, signed[-1].hash if signed else GENESIS)
        try:
            store.add(key.signed(statement))
        except ConflictError:  # another run, or this one's own write whose answer was lost: read again
            conflicts += 1
        else:
            made.append(statement.number)
    raise ConflictError("other runs kept signing at the same time", hint="run it once an hour")


def _moved(signed: dict[str, Head], chains: Chains) -> tuple[dict[str, Head], tuple[Finding, ...]]:
    """Return the new heads of sound chains that are longer than `signed` says, and the faults of the others."""
    moved: dict[str, Head] = {}
    findings: list[Finding] = []
    for chain in sorted({*chains.chains(), *signed}):
        start = signed.get(chain, Head())
        kept = chains.kept(chain, since=max(start.number, 1))
        faults = [*kept.findings, *_faults(chain, kept.entries, start)]
        findings += faults
        newest = Head(kept.entries[-1].number, kept.entries[-1].hash) if kept.entries else start
        if newest.number > start.number and not has_errors(faults):
            moved[chain] = newest
    return moved, tuple(findings)


def _faults(chain: str, entries: Sequence[Entry], start: Head) -> tuple[Finding, ...]:
    if start == Head():
        return verify(chain, entries)
    if not entries or Head(entries[0].number, entries[0].expected_hash) != start:
        message = f"{chain} no longer has the signed entry {start.number}: it was cut or rewritten"
        return (Finding.error("evidence.forked", message, "broker evidence verify --all shows where"),)
    return verify(chain, entries[1:], start=start)
