"""Entries of evidence, chained by hash so that edits, gaps, reordering and forks are detected.

An account's chain grows inside its document, under the document's compare-and-set, and is copied out entry by entry;
an issuing process has its own chain of the same kind of entries.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct, structs

from broker.copies import replace
from broker.errors import InputError
from broker.model.clock import Stamp
from broker.model.finding import Finding

GENESIS: Final = "0" * 64
LAST: Final = 99_999_999  # the largest number of an entry: its path has room for eight digits
BATCH: Final = "records"  # the fact that holds a batch of leases, a line of JSON each
_LONG: Final = 1000  # characters of a fact: a subject with every field as long as X.520 lets it be
_LONGEST: Final[Mapping[str, int]] = {
    "fingerprints": 64 * 65,  # of as many CAs as are read from one text
    BATCH: 512 * 1024,
}
Fact = str | int


class Entry(Struct, frozen=True):
    """One event. `number` counts a chain's entries from 1 without a gap; `facts` hold no secret."""

    chain: str  # "accounts/mzp-1", "issued/<process>"
    number: int
    at: datetime
    by: str
    what: str
    facts: Mapping[str, Fact]
    before: str  # the hash of the entry before, GENESIS for the first
    hash: str

    @property
    def expected_hash(self) -> str:
        """SHA-256 over all the other fields as canonical JSON (sorted keys, no blanks, ASCII), lower-case hex."""
        content = structs.asdict(self) | {"at": self.at.isoformat(), "facts": dict(self.facts)}
        del content["hash"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Head(Struct, frozen=True):
    """The last entry of a chain, by number and hash."""

    number: int = 0
    hash: str = GENESIS


def appended(chain: str, head: Head, stamp: Stamp, what: str, facts: Mapping[str, Fact]) -> Entry:
    """Return the entry that follows `head`; raise `InputError` for a text that cannot be stored unchanged."""
    for name, value in (("actor", stamp.by), *facts.items()):
        require_text(name, value)
    draft = Entry(chain, head.number + 1, stamp.at, stamp.by, what, facts, head.hash, "")
    return replace(draft, hash=draft.expected_hash)


def require_text(name: str, value: Fact) -> None:
    """Raise `InputError` for a text that is too long, or that UTF-8 does not preserve: its hash would not fit.

    Python makes such surrogates of other octets on a command line (PEP 383).
    """
    text = str(value)
    longest = _LONGEST.get(name, _LONG)
    if len(text) > longest:
        raise InputError(f"{name} has {len(text)} characters, more than the {longest} that fit", hint="shorten it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is not valid UTF-8", hint="set the terminal, or the script, to UTF-8") from None


def verify(
    chain: str, entries: Iterable[Entry], head: Head | None = None, *, start: Head | None = None
) -> tuple[Finding, ...]:
    """Return the faults of `entries` as the whole of `chain`, or with `start` as all that follows it.

    The chain must pass through `head`, if given. Entries after the head are checked like the others, since a head can
    be older than the chain. Without a head from elsewhere (a signed one, or the account document) a cut tail cannot
    be detected.
    """
    found: list[Finding] = []
    reached = start or Head()
    for position, entry in enumerate(entries, start=reached.number + 1):
        found += _faults(chain, entry, position, reached)
        reached = Head(entry.number, entry.hash)
        if head is not None and reached.number == head.number and reached != head:
            found.append(_error("forked", f"{_where(chain, entry)} differs from its head: the chain forked"))
    if head is not None and reached.number < head.number:
        found.append(_error("cut", f"{chain} ends at entry {reached.number}, but its head is at {head.number}: cut"))
    return tuple(found)


def _faults(chain: str, entry: Entry, position: int, reached: Head) -> Iterable[Finding]:
    where = _where(chain, entry)
    if entry.chain != chain:
        yield _error("foreign", f"{where} belongs to {entry.chain}: it was copied from another chain")
    if entry.number != reached.number + 1:
        yield _error("gap", f"{where} stands at place {position}, after entry {reached.number}: missing or reordered")
    if entry.before != reached.hash:
        yield _error("broken", f"{where} does not follow the entry before it: one of them was replaced, or it forks")
    if entry.hash != entry.expected_hash:
        yield _error("edited", f"{where} was edited: its content does not give its hash")


def _where(chain: str, entry: Entry) -> str:
    return f"{chain} entry {entry.number}"


def _error(code: str, message: str) -> Finding:
    return Finding.error(f"evidence.{code}", message, "keep what you have and compare it with a backup")
