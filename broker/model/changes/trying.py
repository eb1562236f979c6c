"""Changes of tries: a canary is reserved before it is sent, then answered; the breaker is reset."""

from datetime import datetime, timedelta
from typing import Final

from broker.copies import replace
from broker.errors import ConflictError, RefusedError
from broker.model.account import Account
from broker.model.changes.writing import recorded, swapped, with_password_step
from broker.model.clock import Stamp
from broker.model.generation import Breaker, Parts, Try
from broker.model.history import Event, parts_facts
from broker.model.password_rotation import PasswordStep
from broker.model.todo import LONGEST_PAUSE, obstacles, paused_until
from broker.model.verdict import CanaryResult, Verdict

TRIES_KEPT: Final = 10


def canary_sent(account: Account, generation: int, parts: Parts, id_: str, stamp: Stamp) -> Account:
    """Reserve try `id_` of `generation` with its complete `parts`. It is sent only after this is stored.

    Raise the error of the worst of its `obstacles`, `RefusedError` if the generation is retired, and `ConflictError` if
    its parts have changed.
    """
    stage = account.generation(generation).stage
    if any(t.id == id_ for t in account.tries):
        return account
    if not stage.living:
        raise RefusedError(f"generation {generation} of {account.name} is {stage.value}: {stage.meaning}")
    worst = next(obstacles(account, stamp.at), None)
    if worst:
        raise worst.error(worst.message, hint=worst.hint)
    if account.parts_of(account.generation(generation)) != parts:
        raise ConflictError(
            f"another set of {account.name} became current since generation {generation} was read", hint="try again"
        )
    number = 1 + (account.tries[-1].number if account.tries else 0)
    after = replace(account, tries=(*account.tries, Try(number, generation, stamp.at, parts, id_))[-TRIES_KEPT:])
    return recorded(
        after, stamp, Event.CANARY_SENT, attempt=number, generation=generation, id=id_, **parts_facts(parts)
    )


def canary_answered(account: Account, number: int, answer: CanaryResult, stamp: Stamp) -> Account:
    """Store the verdict on try `number` and its effects: the breaker, a rejected client_id, a pause."""
    made, verdict = next((t for t in account.tries if t.number == number), None), answer.verdict.value
    if made is None or made.verdict == verdict:
        return account
    after = replace(account, tries=swapped(account.tries, made, replace(made, verdict=verdict)))
    after = replace(after, not_before=_pause(account, made, stamp.at, answer.wait))
    if answer.verdict is Verdict.OK:
        after = with_password_step(after, PasswordStep.TRIED, made.parts.password, stamp)
    if answer.verdict is Verdict.LOGIN_REJECTED:
        after = replace(after, breaker=Breaker(stamp.at, made.parts.password, made.generation))
    if answer.verdict is Verdict.CLIENT_REJECTED and answer.application:  # if it still has the same client_id
        rejected = replace(answer.application, rejected_at=stamp.at)
        after = replace(after, applications=swapped(after.applications, answer.application, rejected))
    return recorded(after, stamp, Event.CANARY_ANSWERED, attempt=number, generation=made.generation, verdict=verdict)


def _pause(account: Account, made: Try, at: datetime, wait: timedelta | None) -> datetime | None:
    """Return the end of the partner's pause, at most `LONGEST_PAUSE` from now.

    A late answer does not shorten the pause that a later try got.
    """
    asked = at + min(wait, LONGEST_PAUSE) if wait else None
    stored = paused_until(account, at)
    if made is account.tries[-1] or stored is None:
        return asked
    return max(stored, asked or stored)


def breaker_reset(account: Account, reason: str, stamp: Stamp) -> Account:
    """Allow tries again: reset the breaker, end the pause, mark unanswered tries as unknown."""
    if not account.breaker and not account.not_before and all(t.verdict for t in account.tries):
        return account
    tries = tuple(t if t.verdict else replace(t, verdict="unknown") for t in account.tries)
    after = replace(account, breaker=None, not_before=None, tries=tries)
    return recorded(after, stamp, Event.BREAKER_RESET, reason=reason)
