"""Make a candidate current, once the partner has accepted it; or go back."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.changes import moved, rebased, restored
from broker.model.clock import Clock
from broker.model.generation import Generation
from broker.model.names import AccountName
from broker.model.stage import Move, Stage
from broker.rotation.amend import amend
from broker.rotation.canary import require_ok, try_out
from broker.rotation.ports import Accounts, Answer, Canary

__all__ = ["Promotion", "chosen_candidate", "promote", "reject", "roll_back"]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion came to. `way_back` says what the partner thinks of the displaced set, if it was asked."""

    account: Account
    number: int
    answer: Answer | None = None
    way_back: Answer | None = None


def promote(
    name: AccountName, number: int = 0, *, accounts: Accounts, canary: Canary, clock: Clock, by: str
) -> Promotion:
    """Try candidate `number` (0: the newest no roll-back displaced) against the partner and make it current.

    Where another became current since the candidate was made, the two are joined into a new number first, and that
    one is tried. The try comes before the move, so a kill leaves everything as it was or finished; a candidate
    overtaken while its canary was away is refused on the account as it then is.
    """
    seen = accounts.read(name).account
    candidate = seen.generation(number) if number else chosen_candidate(seen)
    if candidate.stage is Stage.CURRENT:
        return Promotion(seen, candidate.number)
    if candidate.stage is not Stage.CANDIDATE:
        moved(seen, candidate.number, Move.PROMOTE, at=clock(), by=by)  # refuses, in the table's words
    seen = amend(accounts, name, lambda account: rebased(account, candidate.number, at=clock(), by=by))
    if seen.generation(candidate.number).stage is Stage.REJECTED:
        candidate = chosen_candidate(seen)
    answer = try_out(name, candidate.number, accounts=accounts, canary=canary, clock=clock, by=by)
    require_ok(name, candidate.number, answer)
    way_back = _way_back(seen, candidate, accounts=accounts, canary=canary, clock=clock, by=by)
    after = amend(accounts, name, lambda account: moved(account, candidate.number, Move.PROMOTE, at=clock(), by=by))
    return Promotion(after, candidate.number, answer, way_back)


def roll_back(
    name: AccountName,
    number: int = 0,
    *,
    accounts: Accounts,
    canary: Canary | None,
    clock: Clock,
    by: str,
    reason: str = "",
) -> Promotion:
    """Make previous generation `number` (0: the newest) current again; the displaced one becomes a held candidate.

    Where password or trust changed since, the old certificate is first joined to the proven ones, as a new
    generation. It is tried first; `canary=None` is a person's word that it need not be, and `reason` says why.
    """
    seen = accounts.read(name).account
    target = seen.generation(number) if number else _newest_previous(seen)
    if target.stage is Stage.CURRENT:
        return Promotion(seen, target.number)
    seen = amend(accounts, name, lambda account: restored(account, target.number, at=clock(), by=by))
    joined = [
        g for g in seen.candidates if g.restores == target.number and seen.current and g.base == seen.current.number
    ]
    target = joined[-1] if joined else target
    answer = None
    if canary:
        answer = try_out(name, target.number, accounts=accounts, canary=canary, clock=clock, by=by)
        require_ok(name, target.number, answer)
    after = amend(
        accounts, name, lambda account: moved(account, target.number, Move.ROLL_BACK, at=clock(), by=by, reason=reason)
    )
    return Promotion(after, target.number, answer)


def reject(name: AccountName, number: int, reason: str, *, accounts: Accounts, clock: Clock, by: str) -> Account:
    """Withdraw a candidate."""
    return amend(accounts, name, lambda account: moved(account, number, Move.REJECT, at=clock(), by=by, reason=reason))


def chosen_candidate(account: Account) -> Generation:
    """Return the newest candidate that a machine may promote; raise `RefusedError`."""
    free = [g for g in account.candidates if not g.held]
    if free:
        return free[-1]
    held = ", ".join(str(g.number) for g in account.candidates)
    raise RefusedError(
        f"{account.name} has no candidate" + (f" but those a roll-back displaced: {held}" if held else ""),
        hint="--generation NUMBER promotes it all the same" if held else f"broker csr new {account.name} begins one",
    )


def _newest_previous(account: Account) -> Generation:
    previous = [g for g in account.generations if g.stage is Stage.PREVIOUS]
    if not previous:
        raise RefusedError(f"{account.name} has no previous generation to go back to")
    return max(previous, key=lambda g: (g.since, g.number))


def _way_back(
    account: Account, candidate: Generation, *, accounts: Accounts, canary: Canary, clock: Clock, by: str
) -> Answer | None:
    """Try the current set too, so that rolling back is known good; never a password that has been superseded."""
    current = account.current
    if current is None or current.parts.password != candidate.parts.password:
        return None
    return try_out(account.name, current.number, accounts=accounts, canary=canary, clock=clock, by=by)
