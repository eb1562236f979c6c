"""Reasons not to send a canary for an account: why, until when, and the command that ends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.errors import BrokerError, ConflictError, RefusedError, WaitingError
from broker.model.account import Account

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
