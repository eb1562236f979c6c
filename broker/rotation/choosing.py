"""Choose the generation that a command means, where none or an older number is named."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.generation import Generation
from broker.model.stage import Stage
from broker.rotation.ports import Answer

__all__ = [
    "Promotion",
    "chosen_candidate",
    "free_candidates",
    "joined_form",
    "newest_form",
    "set_to_try",
    "way_back_from",
]


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


def set_to_try(account: Account) -> Generation:
    """Return the set that a canary is about where none is named: what `promote` would take, else the current one."""
    if account.current and not free_candidates(account):
        return account.current
    if not account.current and not account.candidates:
        raise RefusedError(f"{account.name} has no set yet", hint=f"broker csr new {account.name} begins one")
    return chosen_candidate(account)


def chosen_candidate(account: Account) -> Generation:
    """Return the newest candidate that no roll-back made or displaced; raise `RefusedError`."""
    free = free_candidates(account)
    if free:
        return free[-1]
    held = ", ".join(str(g.number) for g in account.candidates)
    raise RefusedError(
        f"{account.name} has no candidate" + (f" but what a roll-back left: {held}" if held else ""),
        hint="--generation NUMBER promotes it all the same" if held else f"broker csr new {account.name} begins one",
    )


def free_candidates(account: Account) -> list[Generation]:
    """Return the candidates that no roll-back made or displaced, the newest last."""
    return [g for g in account.candidates if not g.held and not g.restores]


def newest_form(account: Account, generation: Generation) -> Generation:
    """Follow a candidate through the numbers it got each time it was joined to what had changed."""
    following = next((g for g in account.generations if g.replaces == generation.number), None)
    return newest_form(account, following) if following else account.generation(generation.number)


def joined_form(account: Account, target: Generation) -> Generation:
    """Return the candidate that brings `target` back joined to what is proven, else `target`."""
    current = account.current.number if account.current else 0
    joined = [g for g in account.candidates if g.restores == target.number and g.base == current]
    return joined[-1] if joined else account.generation(target.number)


def way_back_from(account: Account) -> Generation:
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
