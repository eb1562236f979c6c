"""Moves of generations between stages, and candidates made of others. Each is one write."""

from collections.abc import Collection

from broker.copies import replace
from broker.errors import ConflictError, RefusedError
from broker.model.account import Account
from broker.model.chain import Entry, Fact
from broker.model.changes.writing import dooming_unused, pruned, recorded, swapped, with_candidate, with_password_step
from broker.model.clock import Stamp
from broker.model.generation import Generation, KeyRef, Parts, SecretRef, replaced_ids
from broker.model.history import Event, parts_facts
from broker.model.password_rotation import PasswordStep
from broker.model.stage import MOVES, Move, Stage


def moved(account: Account, number: int, move: Move, stamp: Stamp, reason: str = "") -> Account:
    """Move generation `number` as the table allows, and displace the current one if it takes its place.

    A candidate that becomes current keeps its parts as laid over the current set. In the order of moves, a displaced
    generation comes before the new current one, or after it, if a roll-back displaced it.
    """
    row, generation, current = MOVES[move], account.generation(number), account.current
    if generation.stage is row.end:
        return account
    require_move(account, generation, move)
    order, generations = account.next_order, account.generations
    facts: dict[str, Fact] = {"generation": number, "move": move.value, "stage": row.end.value, "order": order + 1}
    parts = generation.parts
    if row.end is Stage.CURRENT:
        _require_laid_over(account, generation)
        parts = account.parts_of(generation)
        facts |= parts_facts(parts)
    if row.displaced and current:
        place = order + 2 if move is Move.ROLL_BACK else order
        gone = replace(current, stage=row.displaced, since=stamp.at, order=place)
        generations = swapped(generations, current, gone)
        facts |= {"displaced": current.number, "displaced_stage": row.displaced.value}
    if reason:
        facts["reason"] = reason
    arrived = replace(generation, parts=parts, stage=row.end, since=stamp.at, order=order + 1)
    after = _arrived(account, swapped(generations, generation, arrived), arrived)
    if row.end is Stage.CURRENT:
        after = with_password_step(after, PasswordStep.PROMOTED, parts.password, stamp)
    after = recorded(after, stamp, Event.GENERATION_MOVED, **facts)
    for candidate in _overtaken(account, generation, move):
        after = moved(after, candidate.number, Move.REJECT, stamp, f"overtaken by generation {number}")
    return pruned(dooming_unused(account, after))


def _arrived(account: Account, generations: tuple[Generation, ...], arrived: Generation) -> Account:
    """Return `account` with `generations`. If `arrived` became current, the applications have its client_ids.

    Sets that were current keep those that it replaces, for a roll-back.
    """
    if arrived.stage is not Stage.CURRENT:
        return replace(account, generations=generations)
    new, replaced = arrived.parts.client_ids, replaced_ids(account.client_ids, arrived.parts.client_ids)
    applications = (
        replace(a, client_id=new[a.name], rejected_at=None) if a.name in replaced else a for a in account.applications
    )
    kept = (
        replace(g, parts=g.parts.over(Parts(client_ids=replaced))) if g.stage is Stage.PREVIOUS else g
        for g in generations
    )
    return replace(account, generations=tuple(kept), applications=tuple(applications), trust=arrived.parts.trust)


def _overtaken(account: Account, generation: Generation, move: Move) -> list[Generation]:
    """Return the candidates that `move` rejects: older ones for the same part, or for a certificate that is retired."""
    others = [c for c in account.candidates if c is not generation]
    if move is Move.RETIRE and generation.stage is Stage.PREVIOUS:
        return [c for c in others if c.parts.certificate == generation.parts.certificate]
    if move is not Move.PROMOTE or generation.stage is not Stage.CANDIDATE or account.reuses_certificate(generation):
        return []
    return [c for c in others if c.number < generation.number and c.parts.names & generation.parts.names]


def require_move(account: Account, generation: Generation, move: Move) -> None:
    """Raise `RefusedError` unless `generation` may make `move`, by its stage and by how it came to it."""
    stage, name, row = generation.stage, account.name, MOVES[move]
    starts = " or ".join(start.value for start in Stage if start in row.starts)
    allowed, hint = stage in row.starts, f"it takes one that is {starts}: broker rotation status {name}"
    if stage is Stage.PREVIOUS and row.end is Stage.CURRENT:
        allowed = account.rolled_back(generation) is (move is Move.PROMOTE)
        verb = "rollback" if move is Move.PROMOTE else "promote"
        hint = f"broker rotation {verb} {name} --generation {generation.number}"
    elif move is Move.ROLL_BACK:
        allowed = allowed and account.reuses_certificate(generation)
    if not allowed:
        verb = move.value.replace("_", " ")
        raise RefusedError(f"cannot {verb} generation {generation.number} of {name}: it is {stage.value}", hint=hint)


def _require_laid_over(account: Account, generation: Generation) -> None:
    """Raise `ConflictError` if a previous generation has older secrets or CAs than the current one."""
    current, parts = account.current, generation.parts
    if current and generation.stage is Stage.PREVIOUS and not _same_beside(parts, current.parts):
        raise ConflictError(
            f"generation {current.number} of {account.name} became current with other secrets or CAs than generation "
            f"{generation.number} has",
            hint=f"broker rotation status {account.name}; the same command again joins the two",
        )


def _same_beside(parts: Parts, current: Parts) -> bool:
    """Return whether two sets have the same secrets and CAs of the server."""
    return (parts.secrets, parts.trust) == (current.secrets, current.trust)


def generation_to_try(account: Account) -> Generation:
    """Return the newest candidate that a machine may promote, else the current generation; raise `RefusedError`."""
    chosen = account.automatic_candidate or account.current
    if chosen:
        return chosen
    request = account.open_request
    hint = f"broker csr new {account.name} starts a signing request"
    if request:
        waits = (
            f"broker cert import {account.name} FILE" if request.submissions else f"broker csr submit {account.name}"
        )
        hint = f"{waits} goes on with signing request {request.number}"
    raise RefusedError(f"{account.name} has no candidate", hint=hint)


def rollback_target(account: Account, wanted: Generation) -> Generation:
    """Return the candidate that brings back what a roll-back to `wanted` does, else `wanted`."""
    made = [c for c in account.candidates if c.parts == account.brought_back(wanted)]
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


def restored(account: Account, number: int, stamp: Stamp) -> Account:
    """Add a candidate with certificate and client_ids of previous generation `number`, over newer secrets or CAs.

    Nothing to do if the current secrets and CAs are its own: then it becomes current itself.
    """
    generation, current = account.generation(number), account.current
    if generation.stage is not Stage.PREVIOUS or current is None:
        return account
    parts = account.brought_back(generation)
    if parts == current.parts.certified:
        trust = f"broker trust set {account.name} FILE --accept-ca SHA256 --replace sets the old CAs"
        secret = f"broker password set {account.name} sets the old password again"
        raise RefusedError(
            f"generation {number} of {account.name} has certificate and client_ids of the current one: nothing to roll "
            "back",
            hint=trust if generation.parts.secrets == current.parts.secrets else secret,
        )
    if _same_beside(generation.parts, current.parts) or any(c.parts == parts for c in account.candidates):
        return account
    return with_candidate(account, parts, stamp)


def joined(account: Account, one: int, other: int, stamp: Stamp) -> Account:
    """Join two candidates that change different parts into one, which replaces them.

    Nothing to do if a later generation has the parts of both.
    """
    first, second = account.generation(one), account.generation(other)
    if joined_form(account, first, second):
        return account
    for generation in (first, second):
        if generation.stage is not Stage.CANDIDATE:
            raise RefusedError(
                f"cannot join generation {generation.number} of {account.name}: it is {generation.stage.value}",
                hint=f"it takes two candidates: broker rotation status {account.name}",
            )
    both = first.parts.names & second.parts.names
    if both:
        raise RefusedError(
            f"generations {one} and {other} of {account.name} change the same part: {', '.join(sorted(both))}",
            hint=f"broker rotation reject {account.name} --generation {one} --reason TEXT withdraws the first",
        )
    reason = f"joined into generation {account.next_generation}"
    after = with_candidate(account, first.parts.over(second.parts), stamp)
    for number in (one, other):
        after = moved(after, number, Move.REJECT, stamp, reason)
    return after


def joined_form(account: Account, one: Generation, other: Generation) -> Generation | None:
    """Return the newest later generation that has the parts of both, if there is one."""
    parts, after = one.parts.over(other.parts), max(one.number, other.number)
    later = [g for g in account.generations if g.number > after and parts.over(g.parts) == g.parts]
    return later[-1] if later else None


def settled(
    account: Account, entries: Collection[Entry], keys: Collection[KeyRef], secrets: Collection[SecretRef]
) -> Account:
    """Drop `entries` from the outbox, since they are stored, and `keys` and `secrets`, since they are destroyed."""
    return replace(
        account,
        outbox=tuple(e for e in account.outbox if e not in entries),
        doomed_keys=account.doomed_keys.difference(keys),
        doomed_secrets=account.doomed_secrets.difference(secrets),
    )
