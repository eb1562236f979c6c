"""The next step for an account and who does it, and the reasons not to send a canary now."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import chain
from typing import Final

from broker.errors import BrokerError, ConflictError, RefusedError, WaitingError
from broker.model.account import Account
from broker.model.due import DueDate
from broker.model.stage import Stage

LONGEST_PAUSE: Final = timedelta(days=1)  # the longest quota is a sliding day
TRY_TIMEOUT: Final = timedelta(minutes=2)  # a canary without an answer by then was killed
_APART: Final = timedelta(minutes=10)  # between two machines, each at most five minutes from Vault
UNANSWERED: Final = 3  # canaries in a row without an answer: then a person decides


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason not to ask the partner. `until` is None if only a person ends it."""

    code: str
    message: str
    hint: str  # the command that ends it, and the role that may run it
    error: type[BrokerError]  # for a command that would ask the partner
    until: datetime | None = None


def obstacles(account: Account, now: datetime) -> Iterator[Obstacle]:
    """Yield the reasons not to send a canary now, the worst first."""
    name, last = account.name, account.tries[-1] if account.tries else None
    forced = f"broker rotation canary {name} --force --reason TEXT (role rotator)"
    if account.breaker:
        yield Obstacle(
            "breaker",
            f"the partner rejected the login of {name} on {account.breaker.at:%F %TZ}, and partners lock accounts "
            "after several",
            f"broker password set {name} (role operator); if the partner unlocked it, {forced}",
            RefusedError,
        )
    pause = paused_until(account, now)
    if pause:
        yield Obstacle(
            "pause",
            f"the partner asked us to back off for {name} until {pause:%F %TZ}",
            f"wait until then; if the partner allows it earlier, {forced}",
            WaitingError,
            pause,
        )
    if last and not last.verdict and abs(now - last.at) < TRY_TIMEOUT:  # either way: two machines' clocks differ
        yield Obstacle(
            "on-its-way",
            f"another canary of {name} is on its way since {last.at:%TZ}",
            "wait two minutes",
            ConflictError,
            last.at + TRY_TIMEOUT,
        )
    elif len(account.tries) >= UNANSWERED and not any(t.verdict for t in account.tries[-UNANSWERED:]):
        yield Obstacle(
            "unanswered",
            f"the last {UNANSWERED} canaries of {name} were killed before their answer was stored, "
            "and may have counted as failed logins",
            f"ask the partner, then {forced}",
            RefusedError,
        )


def paused_until(account: Account, now: datetime) -> datetime | None:
    """Return when the partner's pause ends; None if there is none.

    An end later than the longest pause from now was not stored by a broker with a right clock: it counts as past.
    """
    until = account.not_before
    return until if until and now < until <= now + LONGEST_PAUSE + _APART else None


class Who(Enum):
    """The party that acts next."""

    NOBODY = "nobody"
    US = "us"
    PARTNER = "partner"


@dataclass(frozen=True, slots=True)
class Todo:
    """A step: who does it, why, and by which command."""

    who: Who
    message: str
    hint: str = ""


def forked_todo(account: Account) -> Todo:
    """Return the step that comes before all others if another entry has taken the place of the account's evidence."""
    message = "its evidence has an entry that is not the account's, and takes no more"
    return Todo(Who.US, message, f"broker evidence verify {account.name}")


def unread_profile_todo(message: str, hint: str) -> Todo:
    """Return the step if the partner's profile cannot be read, which all other steps require."""
    return Todo(Who.US, f"{message}; {hint}")


def next_todo(account: Account, due: DueDate | None, *, lead: timedelta, now: datetime) -> Todo:
    """Return the most urgent step. `due` is the current certificate's; None if there is none."""
    return next(
        chain(_to_fix(account), _in_progress(account, lead, now), _to_begin(account, due, now), _to_tidy(account))
    )


def _to_fix(account: Account) -> Iterator[Todo]:
    if account.breaker:
        yield Todo(Who.US, "the partner rejected the login", f"broker password set {account.name}")
    if not account.secrets:
        yield Todo(Who.US, "it has no password", f"broker password set {account.name}")
    if not account.applications:
        yield Todo(Who.US, "it has no application", f"broker app add {account.name}/APPLICATION")


def _in_progress(account: Account, lead: timedelta, now: datetime) -> Iterator[Todo]:
    for candidate in account.automatic_candidates[-1:]:
        message = f"generation {candidate.number} is ready to be tried"
        for obstacle in obstacles(account, now):
            who = Who.PARTNER if obstacle.until else Who.US
            yield Todo(who, f"{message}; {obstacle.message}; {obstacle.hint}")
        yield Todo(Who.US, message, f"broker rotation promote {account.name}")
    request = account.open_request
    if request and not request.submissions:
        yield Todo(Who.US, f"signing request {request.number} was never sent", f"broker csr submit {account.name}")
    elif request:
        waited = now - request.submissions[0].at
        late = f", stuck: longer than its lead time of {lead.days}d" if waited > lead else ""
        message = f"signing request {request.number} was sent {waited.days}d ago{late}"
        yield Todo(Who.PARTNER, message, f"broker cert import {account.name} FILE")


def _to_begin(account: Account, due: DueDate | None, now: datetime) -> Iterator[Todo]:
    if account.current is None:
        yield Todo(Who.US, "it has no certificate", f"broker csr new {account.name}")
    elif due and due.at <= now:
        yield Todo(Who.US, f"renewal is due ({due.because})", f"broker csr new {account.name}")


def _to_tidy(account: Account) -> Iterator[Todo]:
    name = account.name
    for application in account.applications:
        if not application.client_id:
            message = f"application {application.name} has no client_id"
            yield Todo(Who.US, message, f"broker app set {name}/{application.name} --client-id ID")
    for generation in account.generations:
        if generation.stage is Stage.PREVIOUS and not account.rolled_back(generation):
            message = f"generation {generation.number} can be retired once no consumer holds it"
            yield Todo(Who.US, message, f"broker rotation retire {name} --generation {generation.number}")
    yield Todo(Who.NOBODY, "nothing")
