"""Generations from stage to stage, and joined to what changed meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from broker.errors import ConflictError, RefusedError
from broker.model.account import Account
from broker.model.chain import Entry, Fact
from broker.model.changes.writing import born, dooming, noted, pruned, since, swapped
from broker.model.generation import (
    Generation,
    KeyRef,
    Parts,
    PasswordRef,
)
from broker.model.history import What
from broker.model.stage import MOVES, Move, Stage
from broker.model.stamp import Stamp

__all__ = ["moved", "rebased", "restored", "settled"]

_CERTIFIED: Final = ("key", "certificate", "issuing")  # one part in three fields: they change together
_GROUPS: Final = (_CERTIFIED, ("password",), ("trust",))


def moved(account: Account, number: int, move: Move, stamp: Stamp, reason: str = "") -> Account:
    """Move generation `number` as the table allows, and with it the one that was current."""
    row, generation, current = MOVES[move], account.generation(number), account.current
    if generation.stage is row.end:
        return account
    _guard(account, generation, move)
    generations, begins = account.generations, since(account, stamp.at)
    if row.displaced and current:
        displaced = replace(current, stage=row.displaced, since=begins, held=move is Move.ROLL_BACK)
        generations = swapped(generations, current, displaced)
    arrived = replace(generation, stage=row.end, since=begins, held=False)
    after = replace(account, generations=swapped(generations, generation, arrived))
    if row.end is Stage.CURRENT:
        after = replace(after, trust=generation.parts.trust)
    facts: dict[str, Fact] = {"generation": number, "move": move.value, "stage": row.end.value}
    if row.displaced and current:
        facts |= {"displaced": current.number, "displaced_stage": row.displaced.value}
    if reason:
        facts["reason"] = reason
    return pruned(dooming(account, noted(after, stamp, What.GENERATION_MOVED, **facts)))


def _either(move: Move) -> str:
    return " or ".join(stage.value for stage in Stage if stage in MOVES[move].starts)


def _guard(account: Account, generation: Generation, move: Move) -> None:
    number, current = generation.number, account.current
    if generation.stage not in MOVES[move].starts or (
        move is Move.ROLL_BACK and generation.stage is Stage.CANDIDATE and not generation.restores
    ):
        raise RefusedError(
            f"cannot {move.value.replace('_', ' ')} generation {number} of {account.name}: it is "
            f"{generation.stage.value}",
            hint=f"it takes one that is {_either(move)}: broker rotation status {account.name}",
        )
    if MOVES[move].end is not Stage.CURRENT or current is None:
        return
    overtaken = generation.stage is Stage.CANDIDATE and generation.base != current.number
    if overtaken or (generation.stage is Stage.PREVIOUS and _unproven(generation, current)):
        raise ConflictError(
            f"generation {current.number} of {account.name} became current since generation {number} was made",
            hint=f"broker rotation status {account.name}; the same command again joins the two",
        )


def _unproven(generation: Generation, current: Generation) -> bool:
    return (generation.parts.password, generation.parts.trust) != (current.parts.password, current.parts.trust)


def rebased(account: Account, number: int, stamp: Stamp) -> Account:
    """Join candidate `number` to what became current since it was made, as a new candidate; reject the old one.

    A part that both changed is a `ConflictError`: only a person knows which one is meant.
    """
    generation, current = account.generation(number), account.current
    if generation.stage is not Stage.CANDIDATE or current is None or generation.base == current.number:
        return account
    base = account.generation(generation.base).parts if generation.base else None
    parts = _merged(generation.parts, base, current.parts)
    if parts is None:
        raise ConflictError(
            f"generation {number} of {account.name} and generation {current.number}, now current, change the same part",
            hint=f"broker rotation reject {account.name} --generation {number} --reason TEXT",
        )
    after = moved(account, number, Move.REJECT, stamp, reason=f"overtaken by generation {current.number}")
    return (
        after
        if parts == current.parts
        else born(after, parts, stamp, restores=generation.restores, instead_of=generation)
    )


def restored(account: Account, number: int, stamp: Stamp) -> Account:
    """Join the certificate of previous generation `number` to the newest proven password and trust: a new candidate."""
    generation, current = account.generation(number), account.current
    if generation.stage is not Stage.PREVIOUS or current is None or not _unproven(generation, current):
        return account
    if any(g.restores == number and g.base == current.number for g in account.candidates):
        return account
    parts = replace(generation.parts, password=current.parts.password, trust=current.parts.trust)
    if parts == current.parts:
        raise RefusedError(
            f"generation {number} of {account.name} differs from the current one only in what does not roll back",
            hint=f"broker password set {account.name} sets the old password again",
        )
    return born(account, parts, stamp, restores=number)


def _merged(candidate: Parts, base: Parts | None, current: Parts) -> Parts | None:
    """Return `candidate` joined to `current` by what each changed since `base`; None where both changed a part."""
    merged = current
    for group in _GROUPS:
        ours, theirs = [tuple(getattr(parts, name) for name in group) for parts in (candidate, current)]
        before = tuple(getattr(base, name) for name in group) if base else None
        if ours in (before, theirs):
            continue
        if theirs != before:
            return None
        merged = replace(merged, **dict(zip(group, ours, strict=True)))
    return merged


def settled(
    account: Account, entries: Collection[Entry], keys: Collection[KeyRef], passwords: Collection[PasswordRef]
) -> Account:
    """Drop business that is done: `entries` are in the evidence, `keys` and `passwords` are gone."""
    return replace(
        account,
        outbox=tuple(e for e in account.outbox if e not in entries),
        doomed_keys=account.doomed_keys.difference(keys),
        doomed_passwords=account.doomed_passwords.difference(passwords),
    )
