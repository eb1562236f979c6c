"""What happens to an account, by name; and where it stands, told twice: by its document and by its evidence.

`standing` and `fold` must agree. Where they do not, somebody changed the document past the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, cast

from broker.model.account import Account
from broker.model.certificate import CaSetRef, CertificateRef
from broker.model.chain import Entry, Fact
from broker.model.generation import Closed, KeyRef, Parts, PasswordRef
from broker.model.stage import MOVES, Move, Stage

__all__ = ["Standing", "What", "fold", "parts_facts", "standing"]

_ACCEPTED: Final = "ok"  # the verdict on a canary that the partner answered


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
    proven: set[int] = field(default_factory=set, compare=False)  # accepted by the partner since born or displaced

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
    """Return where the entries of its chain say that the account stands. Raise `ValueError` on what no rule allows.

    Whoever may write an account can append entries that follow well from the ones before. So none may say again, in
    other words, what an earlier one said: an account begins once, and a number is given once.
    """
    found = Standing()
    for entry in entries:
        if (entry.number == 1) is not (entry.what == What.ACCOUNT_ADDED.value):
            raise ValueError(
                f"entry {entry.number} of {entry.chain} is {entry.what}: an account begins once, at entry 1"
            )
        try:
            _apply(found, What(entry.what), entry.facts)
        except KeyError as missing:
            raise ValueError(f"entry {entry.number} of {entry.chain} speaks of {missing}, which is not there") from None
    return found


def _apply(found: Standing, what: What, facts: Mapping[str, Fact]) -> None:
    if what is What.REQUEST_DRAFTED:
        found.requests[_new(found.requests, facts["request"])] = None
    elif what is What.REQUEST_CLOSED:
        _close(found, int(facts["request"]), Closed(facts["closed"]))
    elif what is What.PASSWORD_SET:
        found.password = int(facts["password"])
    elif what is What.GENERATION_BORN:
        number = _new(found.stages, facts["generation"])
        found.stages[number], found.parts[number] = Stage.CANDIDATE, _parts(facts)
    elif what is What.CANARY_ANSWERED and facts["verdict"] == _ACCEPTED:
        found.proven.add(int(facts["generation"]))
    elif what is What.GENERATION_MOVED:
        _move(found, int(facts["generation"]), facts)


def _new(known: Iterable[int], number: Fact) -> int:
    if int(number) <= max(known, default=0):
        raise ValueError(f"the evidence gives number {number} a second time")
    return int(number)


def _close(found: Standing, number: int, why: Closed) -> None:
    if found.requests[number] is not None:
        raise ValueError(f"the evidence closes request {number} a second time")
    found.requests[number] = why


def _move(found: Standing, number: int, facts: Mapping[str, Fact]) -> None:
    """Move `number` by the table; to current only what the partner accepted, or what a person said to go back to."""
    move = Move(facts["move"])
    row = MOVES[move]
    if found.stages[number] not in row.starts or facts["stage"] != row.end.value:
        raise ValueError(
            f"the evidence has {move.value} of generation {number}, which was {found.stages[number].value}"
        )
    untried = move is Move.ROLL_BACK and facts.get("reason")
    if row.end is Stage.CURRENT and number not in found.proven and not untried:
        raise ValueError(f"the evidence has {move.value} of generation {number}, which the partner had not accepted")
    if row.displaced and found.current:
        found.proven.discard(found.current)  # what comes back is tried anew
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
        CaSetRef(cast("str", facts["trust"])),
        CaSetRef(cast("str", facts["issuing"])),
    )
