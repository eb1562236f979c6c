"""Choose the generation that a command means, where none or an older number is named."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.generation import Generation
from broker.model.stage import Stage
from broker.rotation.ports import CanaryResult

__all__ = ["Promotion", "generation_to_try", "newest_candidate", "rollback_target", "way_back"]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion came to. `way_back` says what the partner thinks of the displaced set, if it was asked.

    `changed` is false where generation `number` was current already, and nobody was asked.
    """

    account: Account
    number: int
    answer: CanaryResult | None = None
    way_back: CanaryResult | None = None
    changed: bool = True


def generation_to_try(account: Account) -> Generation:
    """Return the set that a canary is about where none is named: what `promote` would take, else the current one."""
    if account.current and not account.automatic_candidates:
        return account.current
    if not account.current and not account.candidates:
        raise RefusedError(f"{account.name} has no set yet", hint=f"broker csr new {account.name} begins one")
    return newest_candidate(account)


def newest_candidate(account: Account) -> Generation:
    """Return the newest candidate that no roll-back made; raise `RefusedError`."""
    if account.automatic_candidates:
        return account.automatic_candidates[-1]
    raise RefusedError(f"{account.name} has no candidate", hint=f"broker csr new {account.name} begins one")


def rollback_target(account: Account, wanted: Generation) -> Generation:
    """Return the candidate that brings the certificate of previous generation `wanted` back, else `wanted`."""
    made = [c for c in account.candidates if c.parts == wanted.parts.certified]
    return made[-1] if made and wanted.stage is Stage.PREVIOUS else account.generation(wanted.number)


def way_back(account: Account) -> Generation:
    """Return the generation that the current one displaced; one further back takes a number."""
    current = account.current
    for generation in account.generations:
        if current and generation.stage is Stage.PREVIOUS and generation.order == current.order - 1:
            return generation
    raise RefusedError(
        f"{account.name} has no previous generation to go back to",
        hint=f"broker rotation status {account.name} shows what there is; --generation NUMBER goes further back",
    )
