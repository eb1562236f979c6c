"""What happens to an account, by name; and where it stands, told twice: by its document and by its evidence.

`standing` and `fold` must agree. Where they do not, somebody changed the document past the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import cast

from broker.model.account import Account
from broker.model.certificate import AnchorsRef, CertificateRef
from broker.model.evidence import Entry, Fact
from broker.model.generation import Closed, KeyRef, Parts, PasswordRef
from broker.model.stage import MOVES, Move, Stage

__all__ = ["Standing", "What", "fold", "parts_facts", "standing"]


class What(Enum):
    """The kinds of entry in an account's chain."""

    ACCOUNT_ADDED = "account-added"
    APPLICATION_SET = "application-set"
    APPLICATION_REMOVED = "application-removed"
    PASSWORD_SET = "password-set"  # noqa: S105  # the name of an event
    TRUST_SET = "trust-set"
    CA_ACCEPTED = "ca-accepted"
    REQUEST_DRAFTED = "request-drafted"
    REQUEST_SUBMITTED = "request-submitted"
    REQUEST_CLOSED = "request-closed"
    GENERATION_BORN = "generation-born"
    GENERATION_MOVED = "generation-moved"
    CANARY_SENT = "canary-sent"
    CANARY_ANSWERED = "canary-answered"
    BREAKER_RESET = "breaker-reset"


@dataclass(slots=True)
class Standing:
    """Stages, current, requests and part numbers: what the two accounts of an account must agree on."""

    requests: dict[int, Closed | None] = field(default_factory=dict)
    stages: dict[int, Stage] = field(default_factory=dict)
    parts: dict[int, Parts] = field(default_factory=dict)
    password: int = 0

    @property
    def current(self) -> int:
        """The number of the current generation, 0 if none is."""
        return next((number for number, stage in self.stages.items() if stage is Stage.CURRENT), 0)


def standing(account: Account) -> Standing:
    """Return where the document says that the account stands."""
    return Standing(
        {r.number: r.closed for r in account.requests},
        {g.number: g.stage for g in account.generations},
        {g.number: g.parts for g in account.generations},
        account.password or 0,
    )


def fold(entries: Iterable[Entry]) -> Standing:
    """Return where the entries of its chain say that the account stands. Raise `ValueError` on what no rule allows."""
    found = Standing()
    for entry in entries:
        try:
            _apply(found, What(entry.what), entry.facts)
        except KeyError as missing:
            raise ValueError(f"entry {entry.number} of {entry.chain} speaks of {missing}, which is not there") from None
    return found


def _apply(found: Standing, what: What, facts: Mapping[str, Fact]) -> None:
    if what is What.REQUEST_DRAFTED:
        found.requests[int(facts["request"])] = None
    elif what is What.REQUEST_CLOSED:
        found.requests[int(facts["request"])] = Closed(facts["closed"])
    elif what is What.PASSWORD_SET:
        found.password = int(facts["password"])
    elif what is What.GENERATION_BORN:
        found.stages[int(facts["generation"])] = Stage.CANDIDATE
        found.parts[int(facts["generation"])] = _parts(facts)
    elif what is What.GENERATION_MOVED:
        _move(found, int(facts["generation"]), Move(facts["move"]))


def _move(found: Standing, number: int, move: Move) -> None:
    row = MOVES[move]
    if found.stages[number] not in row.starts:
        raise ValueError(
            f"the evidence has {move.value} of generation {number}, which was {found.stages[number].value}"
        )
    if row.displaced and found.current:
        found.stages[found.current] = row.displaced
    found.stages[number] = row.end


def parts_facts(parts: Parts) -> dict[str, Fact]:
    """Return `parts` as facts of an entry."""
    return {
        "key": parts.key,
        "certificate": parts.certificate,
        "password": parts.password,
        "trust": parts.trust,
        "issuing": parts.issuing,
    }


def _parts(facts: Mapping[str, Fact]) -> Parts:
    return Parts(
        KeyRef(cast("str", facts["key"])),
        CertificateRef(cast("str", facts["certificate"])),
        PasswordRef(int(facts["password"])),
        AnchorsRef(cast("str", facts["trust"])),
        AnchorsRef(cast("str", facts["issuing"])),
    )
