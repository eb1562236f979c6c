"""The model of the commands of passwords and leases, and of the end of a generation."""

from __future__ import annotations

from broker.copies import replace
from tests.chaos.account_model import PASSWORD_STEPS, State
from tests.chaos.linearizable import DONE, START, Operation, Phase
from tests.chaos.model_steps import CONFLICT, OK, REFUSED, USAGE, WAITING, Steps, ends

__all__ = ["lease_key", "lease_revoke", "password_rotate", "password_set", "retire"]


def password_set(op: Operation, state: State, phase: Phase) -> Steps:
    """`password set`."""
    if phase == START:
        good = state.good | ({state.taken + 1} if op.arguments.get("good") else set())
        yield replace(state, taken=state.taken + 1, good=good), ("name", state.taken + 1)
    elif state.password > phase[1]:
        yield from ends(op.failed(CONFLICT, f"password {state.password}"), state)
    elif op.came_to(phase[1]):
        yield _varied(replace(state, password=phase[1], breaker=False).noted("stored", phase[1])), DONE


def _varied(state: State) -> State:
    waiting = next((c for c in reversed(state.candidates()) if c.password), None)
    if waiting is None:
        return state.born(0, state.password) if state.current else state
    return state.staged(waiting.number, "rejected").born(waiting.key, state.password, waiting.ids)


def password_rotate(op: Operation, state: State, _: Phase) -> Steps:
    """`password rotate`: begun, a step confirmed, aborted."""
    done, abort = op.arguments.get("done"), op.arguments.get("abort")
    if not done and not abort:
        yield from _beginning(op, state)
        return
    if state.rotation is None:
        yield from ends(op.failed(REFUSED, "no password rotation"), state)
        return
    old, steps = state.rotation
    following = next(step for step in PASSWORD_STEPS if step not in steps)
    if abort:
        after = replace(state, rotation=None)
        for candidate in state.candidates():
            if candidate.password > old and not candidate.key:
                after = after.staged(candidate.number, "rejected")
        yield from ends(op.code == OK, after)
    elif done in steps:
        yield from ends(op.code == OK, state)
    elif done != following:
        yield from ends(op.failed(REFUSED, f"step {done} comes after step {following} (", "is not done"), state)
    else:
        left = None if done == "dead" else (old, steps | {done})
        yield from ends(op.code == OK, replace(state, rotation=left))


def _beginning(op: Operation, state: State) -> Steps:
    if state.rotation:
        yield from ends(op.code == OK, state)
    elif state.current is None:
        yield from ends(op.failed(REFUSED, "no current password"), state)
    else:
        begun = replace(state, rotation=(state.current.password, frozenset()))
        yield from ends(op.code == OK, begun.noted("stored", state.password))


def retire(op: Operation, state: State, phase: Phase) -> Steps:
    """`rotation retire`: count who holds it, then retire it, unless it was current again in between."""
    generation = state.generation(op.arguments["generation"])
    if phase == START and generation.stage not in ("previous", "rejected", "retired"):
        yield from ends(op.failed(REFUSED, f"generation {generation.number}", generation.stage), state)
    elif phase == START:
        nobody_waits = op.arguments.get("forced") or state.known(state.slot(generation)) or not generation.living
        yield state, ("counted" if nobody_waits else "count", generation.order)
    elif phase[0] == "count" and generation.number in state.held:
        yield from ends(op.failed(WAITING, f"generation {generation.number}"), state)
    elif phase[0] == "count":
        yield state, ("counted", phase[1])
    elif generation.living and generation.order != phase[1]:
        yield from ends(op.failed(CONFLICT, f"generation {generation.number}"), state)
    elif op.code == OK:
        yield (state if generation.stage == "retired" else state.staged(generation.number, "retired")), DONE


def lease_revoke(op: Operation, state: State, phase: Phase) -> Steps:
    """`lease revoke`: store the evidence, then end the holding."""
    number = op.arguments["generation"]
    if phase == START and number not in state.held:
        yield from ends(op.failed(USAGE, f"generation {number}"), state)
    elif phase == START:
        yield state, ("noted",)
    else:
        yield from ends(op.code == OK, replace(state, held=state.held - {number}))


def lease_key(op: Operation, state: State, _: Phase) -> Steps:
    """`lease key rotate`."""
    newest, young = state.lease_key
    if not newest:
        yield from ends(op.failed(REFUSED, "no lease was signed"), state)
    elif young and not op.arguments.get("again"):
        yield from ends(op.came_to(newest), state)
    else:
        yield from ends(op.came_to(newest + 1), replace(state, lease_key=(newest + 1, True)))
