"""The canary: reserved before it is sent, answered, and what stops it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.errors import ConflictError, RefusedError, WaitingError
from broker.model.account import Account
from broker.model.changes.writing import noted, swapped
from broker.model.generation import (
    Breaker,
    Try,
)
from broker.model.history import What

__all__ = ["breaker_reset", "canary_answered", "canary_sent"]

TRIES_KEPT: Final = 10
TRY_TAKES: Final = timedelta(minutes=2)  # a canary without an answer after this was killed
UNANSWERED: Final = 3  # canaries in a row without an answer, after which a person looks first


def canary_sent(account: Account, generation: int, id_: str, *, at: datetime, by: str) -> Account:
    """Reserve try `id_` of `generation`, which is sent only once this is stored.

    Raise `ConflictError` while another is on its way, `WaitingError` while the partner wants to be left alone, and
    `RefusedError` when the breaker is open or the last few tries were never answered: a person looks first.
    """
    stage = account.generation(generation).stage
    last = account.tries[-1] if account.tries else None
    if any(t.id == id_ for t in account.tries):
        return account
    if not stage.living:
        raise RefusedError(f"generation {generation} of {account.name} is {stage.value}: {stage.meaning}")
    if account.breaker:
        raise RefusedError(
            f"the partner rejected the login of {account.name}: nothing tries again by itself, since partners lock "
            "accounts",
            hint=f"broker password set {account.name}; or --force --reason TEXT, if the partner unlocked it",
        )
    if account.not_before and at < account.not_before:
        raise WaitingError(f"the partner wants no request for {account.name} before {account.not_before:%F %TZ}")
    if last and not last.verdict and abs(at - last.at) < TRY_TAKES:  # either way: two machines' clocks differ
        raise ConflictError(
            f"another canary of {account.name} is on its way since {last.at:%TZ}", hint="wait two minutes"
        )
    if len(account.tries) >= UNANSWERED and not any(t.verdict for t in account.tries[-UNANSWERED:]):
        raise RefusedError(
            f"the last {UNANSWERED} canaries of {account.name} died before their answer was stored",
            hint="they may have counted as failed logins; --force --reason TEXT tries again",
        )
    number = 1 + (last.number if last else 0)
    after = replace(account, tries=(*account.tries, Try(number, generation, at, id_))[-TRIES_KEPT:])
    return noted(after, at, by, What.CANARY_SENT, attempt=number, generation=generation, id=id_)


def canary_answered(
    account: Account,
    number: int,
    verdict: str,
    *,
    login_rejected: bool = False,
    client_rejected: str = "",
    wait: timedelta | None = None,
    at: datetime,
    by: str,
) -> Account:
    """Store the verdict on try `number`, and what follows: the breaker, an application's mark, a pause."""
    made = next((t for t in account.tries if t.number == number), None)
    if made is None or made.verdict == verdict:
        return account
    after = replace(account, tries=swapped(account.tries, made, replace(made, verdict=verdict)))
    after = replace(after, not_before=_pause(account, made, at + wait if wait else None))
    if login_rejected:
        password = account.generation(made.generation).parts.password
        after = replace(after, breaker=Breaker(at, password, made.generation))
    if client_rejected:
        application = after.application(client_rejected)
        marked = replace(application, rejected_at=at)
        after = replace(after, applications=swapped(after.applications, application, marked))
    return noted(after, at, by, What.CANARY_ANSWERED, attempt=number, generation=made.generation, verdict=verdict)


def _pause(account: Account, made: Try, asked: datetime | None) -> datetime | None:
    """Return until when the partner is left alone. An answer that came late does not shorten what a later one asked."""
    if made is account.tries[-1] or account.not_before is None:
        return asked
    return max(account.not_before, asked or account.not_before)


def breaker_reset(account: Account, *, reason: str, at: datetime, by: str) -> Account:
    """Allow tries again, because a person says so: close the breaker, end the pause, forget unanswered tries."""
    if not account.breaker and not account.not_before and all(t.verdict for t in account.tries):
        return account
    tries = tuple(t if t.verdict else replace(t, verdict="unknown") for t in account.tries)
    after = replace(account, breaker=None, not_before=None, tries=tries)
    return noted(after, at, by, What.BREAKER_RESET, reason=reason)
