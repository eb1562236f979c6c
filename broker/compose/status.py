"""The status of an account: its generations, when renewal is due, and who must act next."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from broker.errors import InputError
from broker.model.account import Account
from broker.model.due import DueDate, account_due, lead_time
from broker.model.names import AccountName
from broker.model.stage import Stage
from broker.model.todo import Obstacle, State, Todo, Who, forked_todo, next_todo, obstacles, unread_profile_todo
from broker.partners.profile import Profile


@dataclass(frozen=True, slots=True)
class GenerationStatus:
    """A generation in short."""

    number: int
    stage: Stage
    rolled_back: bool


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """An account in short. `due` is when renewal must start, None while no generation is current."""

    account: AccountName
    environment: str
    current: int | None
    not_after: datetime | None
    due: datetime | None
    due_because: str | None
    generations: tuple[GenerationStatus, ...]
    open_request: int | None
    state: State
    who: Who
    message: str
    hint: str
    obstacles: tuple[Obstacle, ...]


def status(account: Account, profile: Callable[[str], Profile], now: datetime, *, forked: bool) -> AccountStatus:
    """Return the status of `account`. An unreadable profile is reported in it, so that other accounts are shown."""
    due, todo = None, None
    try:
        renewal = profile(account.profile).renewal
    except InputError as error:
        todo = unread_profile_todo(error.message, error.hint)
    else:
        lead = lead_time(account, renewal.lead_time)
        due = account_due(account, lead=lead, safety=renewal.safety, share=renewal.share)
        todo = next_todo(account, due, lead=lead, now=now)
    return _status(account, due, forked_todo(account) if forked else todo, now)


def _status(account: Account, due: DueDate | None, todo: Todo, now: datetime) -> AccountStatus:
    current = account.current
    return AccountStatus(
        account=account.name,
        environment=account.environment,
        current=current.number if current else None,
        not_after=account.certificate(current.parts.certificate).not_after if current else None,
        due=due.at if due else None,
        due_because=due.because if due else None,
        generations=tuple(GenerationStatus(g.number, g.stage, account.rolled_back(g)) for g in account.generations),
        open_request=account.open_request.number if account.open_request else None,
        state=todo.state,
        who=todo.who,
        message=todo.message,
        hint=todo.hint,
        obstacles=tuple(obstacles(account, now)),
    )
