"""The next step for an account and who does it, and the reasons not to send a canary now."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from itertools import chain
from typing import Final

from broker.errors import BrokerError, ConflictError, RefusedError, WaitingError
from broker.model.account import Account
from broker.model.due import DueDate
from broker.model.duration import age_text, duration_text
from broker.model.generation import Generation, Try
from broker.model.stage import Stage
from broker.model.verdict import Verdict

LONGEST_PAUSE: Final = timedelta(days=1)  # the longest quota is a sliding day
TRY_TIMEOUT: Final = timedelta(minutes=2)  # a canary without an answer by then was killed
_APART: Final = timedelta(minutes=10)  # between two machines, each at most five minutes from Vault
_VERDICTS: Final = frozenset(verdict.value for verdict in Verdict)  # not that of a try that a person reset
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
            f"wait until {last.at + TRY_TIMEOUT:%TZ}, then run the same command again: it may have been killed",
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


class State(Enum):
    """The state of an account by its facts, the worst first."""

    EXPIRED = "expired"  # the current certificate is over
    STOPPED = "stopped"  # nothing goes on until a person has removed the cause
    SUSPENDED = "suspended"  # a person stopped the issuing of bundles
    DUE = "due"  # renewal must start, or takes longer than it should
    UNFINISHED = "unfinished"  # the next step is ours, and there is time
    WAITING = "waiting"  # the next step is the partner's
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Todo:
    """A step: who does it, why, and by which command; and the state of the account that it follows from."""

    who: Who
    message: str
    hint: str = ""
    state: State = State.UNFINISHED


def forked_todo(account: Account) -> Todo:
    """Return the step that comes before all others if another entry has taken the place of the account's evidence."""
    message = "its evidence has an entry that is not the account's, and takes no more"
    return Todo(Who.US, message, f"broker evidence verify {account.name}", State.STOPPED)


def unread_profile_todo(message: str, hint: str) -> Todo:
    """Return the step if the partner's profile cannot be read, which all other steps require."""
    return Todo(Who.US, f"{message}; {hint}", state=State.STOPPED)


def next_todo(account: Account, due: DueDate | None, *, lead: timedelta, now: datetime) -> Todo:
    """Return the most urgent step. `due` is the current certificate's; None if there is none.

    If the current certificate is over, or the account is suspended, the step says so first.
    """
    step = next(
        chain(_to_fix(account), _in_progress(account, lead, now), _to_begin(account, due, now), _to_tidy(account))
    )
    end = account.certificate(account.current.parts.certificate).not_after if account.current else None
    if end and end <= now:
        return replace(step, message=f"EXPIRED on {end:%F %TZ}; {step.message}", state=State.EXPIRED)
    if account.suspended and step.state is not State.STOPPED:
        message = f"suspended since {account.suspended.at:%F %TZ} ({account.suspended.reason}): nothing is issued"
        return Todo(Who.US, message, f"broker account resume {account.name}", State.SUSPENDED)
    return step


def last_answer(account: Account, generation: Generation) -> tuple[Try, Verdict] | None:
    """Return the last canary of the set that `generation` makes now, and the partner's answer; None without one."""
    parts = account.parts_of(generation)
    for made in reversed(account.tries):
        if (made.generation, made.parts) == (generation.number, parts) and made.verdict in _VERDICTS:
            return made, Verdict(made.verdict)
    return None


def _to_fix(account: Account) -> Iterator[Todo]:
    name = account.name
    if account.breaker:
        message = f"the partner rejected the login on {account.breaker.at:%F %TZ}"
        yield Todo(Who.US, message, f"broker password set {name}", State.STOPPED)
    if not account.secrets:
        yield Todo(Who.US, "it has no password", f"broker password set {name}")
    if not account.applications:
        yield Todo(Who.US, "it has no application", f"broker app add {name}/APPLICATION")
    for generation in account.automatic_candidates[-1:] or filter(None, [account.current]):
        yield from _refused(account, generation)


def _refused(account: Account, generation: Generation) -> Iterator[Todo]:
    """Yield the remedy if the partner's last answer refused this very set."""
    made, verdict = last_answer(account, generation) or (None, Verdict.OK)
    if made and verdict.refuses:
        rejected = next((a.name for a in account.applications if a.rejected_at), "APPLICATION")
        message = f"on {made.at:%F %TZ} the partner's answer to generation {generation.number} was {verdict.value}"
        verb = "promote" if generation.stage is Stage.CANDIDATE else "canary"
        hint = f"{verdict.remedy(account.name, rejected)}; then: broker rotation {verb} {account.name}"
        yield Todo(Who.US, f"{message}: {verdict.message}", hint, State.STOPPED)


def _in_progress(account: Account, lead: timedelta, now: datetime) -> Iterator[Todo]:
    name = account.name
    for candidate in account.automatic_candidates[-1:]:
        made, verdict = last_answer(account, candidate) or (None, None)
        tried = f" again (on {made.at:%F %TZ} the answer was {made.verdict})" if made and verdict else ""
        message = f"generation {candidate.number} is ready to be tried"
        for obstacle in obstacles(account, now):
            who, state = (Who.PARTNER, State.WAITING) if obstacle.until else (Who.US, State.STOPPED)
            yield Todo(who, f"{message}; {obstacle.message}; {obstacle.hint}", state=state)
        yield Todo(Who.US, message + tried, f"broker rotation promote {name}")
    request = account.open_request
    if request and not request.submissions:
        yield Todo(Who.US, f"signing request {request.number} was never sent", f"broker csr submit {name}")
    elif request:
        waited = now - request.submissions[0].at
        late = f", stuck: longer than its lead time of {duration_text(lead)}" if waited > lead else ""
        message = f"signing request {request.number} was sent {age_text(waited)} ago{late}"
        state = State.DUE if late else State.WAITING
        yield Todo(Who.PARTNER, message, f"broker cert import {name} FILE", state)
    elif account.refused_request:
        refused = account.refused_request
        why = refused.closed_because and f": {refused.closed_because}"
        message = f"the partner refused signing request {refused.number} on {refused.closed_at:%F}{why}; correct it"
        yield Todo(Who.US, message, f"broker csr new {name}", State.DUE)


def _to_begin(account: Account, due: DueDate | None, now: datetime) -> Iterator[Todo]:
    if account.current is None:
        yield Todo(Who.US, "it has no certificate", f"broker csr new {account.name}")
    elif due and due.at <= now:
        yield Todo(Who.US, f"renewal is due ({due.because})", f"broker csr new {account.name}", State.DUE)


def _to_tidy(account: Account) -> Iterator[Todo]:
    name = account.name
    for application in account.applications:
        if not application.client_id:
            message = f"application {application.name} has no client_id"
            yield Todo(Who.US, message, f"broker app set {name}/{application.name} --client-id ID")
    for generation in account.generations:
        if generation.stage is Stage.PREVIOUS and not account.rolled_back(generation):
            message = f"generation {generation.number} can be retired once no consumer holds it"
            yield Todo(Who.US, message, f"broker rotation retire {name} --generation {generation.number}", State.OK)
    yield Todo(Who.NOBODY, "nothing", state=State.OK)
