"""The status of an account: its generations, when renewal is due, and who must act next."""

from datetime import datetime

from msgspec import Struct

from broker.model.account import Account
from broker.model.life_cycle import Phase, State, Who
from broker.model.names import AccountName
from broker.model.plan import AccountPlan
from broker.model.stage import Stage
from broker.model.todo import Obstacle, obstacles


class GenerationStatus(Struct, frozen=True):
    """A generation in short."""

    number: int
    stage: Stage
    rolled_back: bool


class AccountStatus(Struct, frozen=True):
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
    phase: Phase
    who: Who
    message: str
    hint: str
    obstacles: tuple[Obstacle, ...]


def status(account: Account, plan: AccountPlan, now: datetime) -> AccountStatus:
    """Return the status of `account`."""
    current = account.current
    return AccountStatus(
        account=account.name,
        environment=account.environment,
        current=current.number if current else None,
        not_after=account.certificate(current.parts.certificate).not_after if current else None,
        due=plan.due.at if plan.due else None,
        due_because=plan.due.because if plan.due else None,
        generations=tuple(GenerationStatus(g.number, g.stage, account.rolled_back(g)) for g in account.generations),
        open_request=account.open_request.number if account.open_request else None,
        state=plan.phase.state,
        phase=plan.phase,
        who=plan.who,
        message=plan.message,
        hint=plan.hint,
        obstacles=tuple(obstacles(account, now)),
    )
