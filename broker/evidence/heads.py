"""Statements of where the chains of evidence stood, signed by a role that can do nothing else.

What a statement names can no longer be changed unseen by whoever may write accounts and evidence: the forged chain
does not pass through the head that was signed. A statement names only the chains that went on since the one before,
and carries that one's hash, so that all of them together are one chain too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.model.chain import GENESIS, Entry, Head
from broker.model.finding import Finding

__all__ = ["SignedStatement", "Statement", "against_statements", "newest_heads", "verify_statements"]


@dataclass(frozen=True, slots=True)
class Statement:
    """Where chains stood at one moment. `number` counts statements from 1 without a gap."""

    number: int
    at: datetime
    chains: Mapping[str, Head]  # those that went on since the statement before
    before: str  # the hash of the statement before, GENESIS for the first

    @property
    def content(self) -> bytes:
        """The octets that are signed: canonical JSON (sorted keys, no blanks, ASCII)."""
        chains = {name: [head.number, head.hash] for name, head in self.chains.items()}
        content = {"number": self.number, "at": self.at.isoformat(), "chains": chains, "before": self.before}
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement whose signature is good. `hash` is of its signed text: SHA-256, lower-case hex."""

    statement: Statement
    hash: str


def newest_heads(signed: Iterable[SignedStatement]) -> dict[str, Head]:
    """Return the last head that was signed of every chain."""
    heads: dict[str, Head] = {}
    for one in signed:
        heads |= one.statement.chains
    return heads


def verify_statements(signed: Sequence[SignedStatement]) -> tuple[Finding, ...]:
    """Return what is wrong with `signed` as all the statements there are."""
    found: list[Finding] = []
    reached, before, heads = 0, GENESIS, dict[str, Head]()
    for one in signed:
        statement = one.statement
        where = _name(statement)
        if statement.number != reached + 1:
            found.append(_error("anchor.gap", f"{where} follows statement {reached}: missing or reordered"))
        elif statement.before != before:
            found.append(_error("anchor.broken", f"{where} does not follow the one before it: one was replaced"))
        for chain, head in sorted(statement.chains.items()):
            if head.number <= heads.get(chain, Head()).number:
                found.append(_error("anchor.shrank", f"{where} signs {chain} at entry {head.number}: it went back"))
        reached, before, heads = statement.number, one.hash, {**heads, **statement.chains}
    return tuple(found)


def against_statements(chain: str, entries: Sequence[Entry], signed: Iterable[SignedStatement]) -> tuple[Finding, ...]:
    """Return the first place where `entries`, the whole of `chain`, is not what a statement signed."""
    hashes = {entry.number: entry.hash for entry in entries}
    last, sound = max(hashes, default=0), 0
    for statement in (one.statement for one in signed):
        head = statement.chains.get(chain, Head())
        if head == Head():
            continue
        if head.number not in hashes:
            what = "the tail was cut" if last < head.number else f"entry {head.number} is missing"
            message = f"{chain} ends at entry {last}, but {_name(statement)} signed its entry {head.number}: {what}"
            return (_error("evidence.cut", message),)
        if hashes[head.number] != head.hash:
            how = f"the chain forked after entry {sound}" if sound else "the chain was written anew"
            message = f"{chain} entry {head.number} is another than {_name(statement)} signed: {how}"
            return (_error("evidence.forked", message),)
        sound = head.number
    return ()


def _name(statement: Statement) -> str:
    return f"statement {statement.number} of {statement.at:%Y-%m-%dT%H:%M:%SZ}"


def _error(code: str, message: str) -> Finding:
    return Finding.error(code, message, "keep what you have and compare it with an older export")
