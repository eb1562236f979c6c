"""End an overlap."""

from __future__ import annotations

from broker.errors import ConflictError, WaitingError
from broker.model.account import Account
from broker.model.changes import moved
from broker.model.clock import Clock
from broker.model.names import AccountName
from broker.model.stage import Move
from broker.rotation.amend import amend_and_tell
from broker.rotation.ports import Accounts, Stragglers

__all__ = ["retire"]


def retire(
    name: AccountName,
    number: int,
    *,
    accounts: Accounts,
    stragglers: Stragglers,
    clock: Clock,
    by: str,
    reason: str = "",
) -> bool:
    """Retire generation `number`, in one write that also dooms its secrets unless a living generation shares them.

    From then on nothing hands the set out; `settle` destroys the key. Raise `WaitingError` while consumers hold it,
    unless a person gives a `reason`, and `ConflictError` where it was current again since they were counted: others may
    have been handed it then. Where it is retired nothing is done, whoever still holds it; return whether anything was.
    """
    seen = accounts.read(name).account
    if moved(seen, number, Move.RETIRE, at=clock(), by=by) == seen:  # else allowed by the table, or refused here
        return False
    holding = stragglers(name, number)
    if holding and not reason:
        raise WaitingError(
            f"generation {number} of {name} is still held by {', '.join(sorted(holding))}",
            hint="wait for them, or --force --reason TEXT",
        )

    def ended(newest: Account) -> Account:
        generation = newest.generation(number)
        if generation.stage.living and generation.since != seen.generation(number).since:
            raise ConflictError(
                f"generation {number} of {name} is {generation.stage.value} since {generation.since:%F %TZ}, "
                "and was not when its holders were counted",
                hint="the same command again counts them anew",
            )
        return moved(newest, number, Move.RETIRE, at=clock(), by=by, reason=reason)

    return amend_and_tell(accounts, name, ended)
