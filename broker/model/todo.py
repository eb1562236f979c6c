"""Who must act next on an account, and how."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from broker.model.account import Account
from broker.model.due import DueDate
from broker.model.obstacle import obstacles
from broker.model.stage import Stage

__all__ = ["Todo", "Who", "forked_todo", "next_todo", "unread_profile_todo"]


class Who(Enum):
    """Whose move it is."""

    NOBODY = "nobody"
    US = "us"
    PARTNER = "partner"


@dataclass(frozen=True, slots=True)
class Todo:
    """One next step: who, message, and the command that does it."""

    who: Who
    message: str
    hint: str = ""


def forked_todo(account: Account) -> Todo:
    """Return the step that comes before all others: something stands where the account's evidence belongs."""
    message = "its evidence has an entry that is not the account's, and takes no more"
    return Todo(Who.US, message, f"broker evidence verify {account.name}")


def unread_profile_todo(message: str, hint: str) -> Todo:
    """Return the step where the partner's rules cannot be read: without them nothing else can be told."""
    return Todo(Who.US, f"{message}; {hint}")


def next_todo(account: Account, due: DueDate | None, *, lead: timedelta, now: datetime) -> Todo:
    """Return the most urgent step. `due` is the current certificate's, None where nothing is current."""
    return _blocked(account) or _in_progress(account, lead, now) or _to_begin(account, due, now) or _to_tidy(account)


def _blocked(account: Account) -> Todo | None:
    if account.breaker:
        return Todo(Who.US, "the partner rejected the login", f"broker password set {account.name}")
    if not account.secrets:
        return Todo(Who.US, "it has no password", f"broker password set {account.name}")
    if not account.applications:
        return Todo(Who.US, "it has no application", f"broker app add {account.name}/APPLICATION")
    return None


def _in_progress(account: Account, lead: timedelta, now: datetime) -> Todo | None:
    request = account.open_request
    free = account.automatic_candidates
    if free:
        message, stopped = f"generation {free[-1].number} waits to be tried", next(obstacles(account, now), None)
        if stopped:
            return Todo(Who.PARTNER if stopped.until else Who.US, f"{message}; {stopped.message}; {stopped.hint}")
        return Todo(Who.US, message, f"broker rotation promote {account.name}")
    if request is None:
        return None
    if not request.submissions:
        return Todo(Who.US, f"signing request {request.number} was never sent", f"broker csr submit {account.name}")
    waited = now - request.submissions[0].at
    stuck = ", stuck: longer than its people take" if waited > lead else ""
    message = f"signing request {request.number} was sent {waited.days}d ago{stuck}"
    return Todo(Who.PARTNER, message, f"broker cert import {account.name} FILE")


def _to_begin(account: Account, due: DueDate | None, now: datetime) -> Todo | None:
    if account.current is None:
        return Todo(Who.US, "it has no certificate", f"broker csr new {account.name}")
    if due and due.at <= now:
        return Todo(Who.US, f"renewal is due ({due.decided_by.because})", f"broker csr new {account.name}")
    return None


def _to_tidy(account: Account) -> Todo:
    lacking = next((a for a in account.applications if not a.client_id), None)
    if lacking:
        message = f"application {lacking.name} has no client_id"
        return Todo(Who.US, message, f"broker app set {account.name}/{lacking.name} --client-id ID")
    over = next((g for g in account.generations if g.stage is Stage.PREVIOUS and not account.rolled_back(g)), None)
    if over:
        message = f"generation {over.number} can be retired once nobody holds it"
        return Todo(Who.US, message, f"broker rotation retire {account.name} --generation {over.number}")
    return Todo(Who.NOBODY, "nothing")
