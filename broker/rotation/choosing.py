"""Choose the generation that a command is about if none, or an older one, is named."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.generation import Generation
from broker.model.stage import Stage
from broker.rotation.ports import CanaryResult


@dataclass(frozen=True, slots=True)
class Promotion:
    """The result of a promotion or a roll-back. `changed` is false if generation `number` was current already."""

    account: Account
    number: int
    answer: CanaryResult | None = None
    way_back: CanaryResult | None = None  # for the displaced set, if that was tried too
    changed: bool = True


def generation_to_try(account: Account) -> Generation:
    """Return the newest candidate that a machine may promote, else the current generation; raise `RefusedError`."""
    if account.automatic_candidates:
        return account.automatic_candidates[-1]
    if account.current:
        return account.current
    request = account.open_request
    hint = f"broker csr new {account.name} starts a signing request"
    if request:
        waits = (
            f"broker cert import {account.name} FILE" if request.submissions else f"broker csr submit {account.name}"
        )
        hint = f"{waits} goes on with signing request {request.number}"
    raise RefusedError(f"{account.name} has no candidate", hint=hint)


def rollback_target(account: Account, wanted: Generation) -> Generation:
    """Return the candidate that brings the certificate of previous generation `wanted` back, else `wanted`."""
    made = [c for c in account.candidates if c.parts == wanted.parts.certified]
    return made[-1] if made and wanted.stage is Stage.PREVIOUS else account.generation(wanted.number)


def displaced_generation(account: Account) -> Generation:
    """Return the generation that the current one displaced; raise `RefusedError`."""
    current = account.current
    for generation in account.generations:
        if current and generation.stage is Stage.PREVIOUS and generation.order == current.order - 1:
            return generation
    raise RefusedError(
        f"{account.name} has no previous generation to go back to",
        hint=f"broker rotation status {account.name} lists the generations; --generation NUMBER takes an older one",
    )
