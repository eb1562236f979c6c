"""Make a candidate current, once the partner has accepted it; or go back."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import ConflictError, RefusedError, WaitingError
from broker.model.account import Account
from broker.model.changes import moved, rebased, restored
from broker.model.clock import Clock
from broker.model.generation import Generation
from broker.model.names import AccountName
from broker.model.stage import Move, Stage
from broker.rotation.amend import amend, amend_and_tell
from broker.rotation.canary import require_ok, try_out
from broker.rotation.ports import Accounts, Answer, Canary

__all__ = ["Promotion", "chosen_candidate", "promote", "reject", "roll_back", "set_to_try"]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion came to. `way_back` says what the partner thinks of the displaced set, if it was asked.

    `changed` is false where generation `number` was current already, and nobody was asked.
    """

    account: Account
    number: int
    answer: Answer | None = None
    way_back: Answer | None = None
    changed: bool = True


def promote(
    name: AccountName, number: int = 0, *, accounts: Accounts, canary: Canary, clock: Clock, by: str
) -> Promotion:
    """Make candidate `number` current (0: the newest that no roll-back made or displaced), once the partner took it.

    With 0 and no candidate there is nothing to do, unless it was a roll-back that made the current one so.
    Where another became current since the candidate was made, the two are joined into a new number first, and that
    one is tried; `number` may name any of the forms it had. The try comes before the move, so a kill leaves
    everything as it was or finished; a candidate overtaken while its canary was away is refused on the account as it
    then is.
    """
    seen = accounts.read(name).account
    if not number and seen.current and _is_promoted(seen, seen.current):
        return Promotion(seen, seen.current.number, changed=False)
    chosen = _newest_form(seen, seen.generation(number) if number else chosen_candidate(seen))
    seen = amend(accounts, name, lambda account: rebased(account, chosen.number, at=clock(), by=by))
    candidate = _newest_form(seen, chosen)
    if moved(seen, candidate.number, Move.PROMOTE, at=clock(), by=by) == seen:  # or refuses, in the table's words
        return Promotion(seen, candidate.number, changed=False)
    answer = try_out(name, candidate.number, accounts=accounts, canary=canary, clock=clock, by=by)
    require_ok(name, candidate.number, answer)
    way_back = _way_back(seen, candidate, accounts=accounts, canary=canary, clock=clock, by=by)

    def finish(account: Account) -> Account:
        if account.generation(candidate.number).held and not candidate.held:
            raise ConflictError(f"a roll-back displaced generation {candidate.number} of {name} meanwhile")
        return moved(account, candidate.number, Move.PROMOTE, at=clock(), by=by)

    return Promotion(amend(accounts, name, finish), candidate.number, answer, way_back)


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
    wanted = seen.generation(number) if number else _way_back_from(seen)
    displaced = seen.current
    if displaced and wanted.number in (displaced.number, displaced.restores):
        return Promotion(seen, displaced.number, changed=False)
    seen = amend(accounts, name, lambda account: restored(account, wanted.number, at=clock(), by=by))
    target = _joined(seen, wanted)
    moved(seen, target.number, Move.ROLL_BACK, at=clock(), by=by)  # refuses what the table does not have, untried
    answer = None
    if canary:
        answer = try_out(name, target.number, accounts=accounts, canary=canary, clock=clock, by=by)
        require_ok(name, target.number, answer)

    def finish(account: Account) -> Account:
        now = account.current.number if account.current else 0
        if now != target.number and displaced and now != displaced.number:
            raise ConflictError(
                f"generation {now} of {name} became current meanwhile",
                hint=f"broker rotation status {name}; the same command again goes back from that one",
            )
        return moved(account, target.number, Move.ROLL_BACK, at=clock(), by=by, reason=reason)

    return Promotion(amend(accounts, name, finish), target.number, answer)


def reject(name: AccountName, number: int, reason: str, *, accounts: Accounts, clock: Clock, by: str) -> bool:
    """Withdraw a candidate; return whether that was left to do."""
    return amend_and_tell(
        accounts, name, lambda account: moved(account, number, Move.REJECT, at=clock(), by=by, reason=reason)
    )


def set_to_try(account: Account) -> Generation:
    """Return the set that a canary is about where none is named: what `promote` would take, else the current one."""
    if account.current and not _free(account):
        return account.current
    if not account.current and not account.candidates:
        raise RefusedError(f"{account.name} has no set yet", hint=f"broker csr new {account.name} begins one")
    return chosen_candidate(account)


def chosen_candidate(account: Account) -> Generation:
    """Return the newest candidate that no roll-back made or displaced; raise `RefusedError`."""
    free = _free(account)
    if free:
        return free[-1]
    held = ", ".join(str(g.number) for g in account.candidates)
    raise RefusedError(
        f"{account.name} has no candidate" + (f" but what a roll-back left: {held}" if held else ""),
        hint="--generation NUMBER promotes it all the same" if held else f"broker csr new {account.name} begins one",
    )


def _free(account: Account) -> list[Generation]:
    return [g for g in account.candidates if not g.held and not g.restores]


def _is_promoted(account: Account, current: Generation) -> bool:
    """Whether no candidate waits, and no roll-back was last: then the same command again has nothing left to do."""
    return all((g.held or g.restores) and g.since < current.since for g in account.candidates)


def _newest_form(account: Account, generation: Generation) -> Generation:
    """Follow a candidate through the numbers it got each time it was joined to what had changed."""
    following = next((g for g in account.generations if g.replaces == generation.number), None)
    return _newest_form(account, following) if following else account.generation(generation.number)


def _joined(account: Account, target: Generation) -> Generation:
    current = account.current.number if account.current else 0
    joined = [g for g in account.candidates if g.restores == target.number and g.base == current]
    return joined[-1] if joined else account.generation(target.number)


def _way_back_from(account: Account) -> Generation:
    """Return the newest previous generation; the current one where a roll-back made it so.

    Whoever runs the same command again, since its answer was lost, must not go back twice: further back takes a number.
    """
    current = account.current
    if current and any(g.held and g.since == current.since for g in account.candidates):
        return current
    previous = [g for g in account.generations if g.stage is Stage.PREVIOUS]
    if not previous:
        raise RefusedError(
            f"{account.name} has no previous generation to go back to",
            hint=f"broker rotation status {account.name} shows what there is",
        )
    return max(previous, key=lambda g: (g.since, g.number))


def _way_back(
    account: Account, candidate: Generation, *, accounts: Accounts, canary: Canary, clock: Clock, by: str
) -> Answer | None:
    """Try the current set too, so that rolling back is known good; never a password that has been superseded.

    That no try is allowed now (one is on its way, the partner wants a pause) is no reason to hold up the promotion.
    """
    current = account.current
    if current is None or current.parts.password != candidate.parts.password:
        return None
    try:
        return try_out(account.name, current.number, accounts=accounts, canary=canary, clock=clock, by=by)
    except (ConflictError, RefusedError, WaitingError):
        return None
