"""A model of each command on a small account: from a state to those that its result allows.

The rules of DESIGN.md a second time, as steps: what a command reads and what it writes in one go is one step. A step
that yields nothing contradicts what the command said.
"""

from __future__ import annotations

from typing import Final

from broker.copies import replace
from tests.chaos import request_model, secret_model
from tests.chaos.account_model import Generation, State
from tests.chaos.linearizable import DONE, Model, Operation, Phase
from tests.chaos.model_steps import CONFLICT, OK, REFUSED, USAGE, Steps, ends, numbered

__all__ = ["COMMANDS"]


def _import(op: Operation, state: State, _: Phase) -> Steps:
    request = state.request(op.arguments["request"])
    known = next((g for g in reversed(state.generations) if g.key == request.number), None)
    if known is None and request.status != "open":
        yield from ends(op.failed(REFUSED, f"request {request.number}", request.status), state)
        return
    after = state
    if known is None:
        password = 0 if state.current else state.password
        after = state.with_request(replace(request, status="answered")).born(request.number, password)
        known = after.generations[-1]
    name = op.arguments.get("application")
    if name and state.client_id(name) not in (None, "", op.arguments["client_id"]):
        yield from ends(op.failed(REFUSED, name), state)
        return
    if name:
        after = after.with_application(name, op.arguments["client_id"])
    yield from ends(op.came_to(known.number), after)


def _app_add(op: Operation, state: State, _: Phase) -> Steps:
    name, wanted = op.arguments["application"], op.arguments.get("client_id", "")
    there = state.client_id(name)
    if there is not None and wanted and there != wanted:
        yield from ends(op.failed(CONFLICT, name), state)
    elif op.code == OK:
        yield state.with_application(name, wanted or there or ""), DONE


def _app_set(op: Operation, state: State, _: Phase) -> Steps:
    name = op.arguments["application"]
    if state.client_id(name) is None:
        yield from ends(op.failed(USAGE, name), state)
    elif op.code == OK:
        yield _with_client_id(state, name, op.arguments["client_id"]), DONE


def _with_client_id(state: State, name: str, wanted: str) -> State:
    """Set it, or make a candidate with it if consumers are given another."""
    if not state.current or state.client_id(name) in ("", wanted):
        return state.withdrawn(name).with_application(name, wanted)
    waiting = next((c for c in reversed(state.candidates()) if name in dict(c.ids)), None)
    if waiting is None:
        return state.born(0, 0, frozenset({(name, wanted)}))
    ids = waiting.without(name).ids | {(name, wanted)}
    return state if ids == waiting.ids else state.staged(waiting.number, "rejected").born(*_part(waiting), ids)


def _part(generation: Generation) -> tuple[int, int]:
    return generation.key, generation.password


def _account_set(op: Operation, state: State, _: Phase) -> Steps:
    yield from ends(op.code == OK, replace(state, renewal=op.arguments["renewal"]))


def _snooze(op: Operation, state: State, _: Phase) -> Steps:
    if op.arguments.get("end"):
        yield from ends(op.code == OK, replace(state, snoozed=False))
    elif state.current is None:
        yield from ends(op.failed(REFUSED, "no certificate"), state)
    else:
        yield from ends(op.code == OK, replace(state, snoozed=True))


def _app_remove(op: Operation, state: State, _: Phase) -> Steps:
    name = op.arguments["application"]
    if state.client_id(name) is None:
        yield from ends(op.failed(USAGE, name), state)
    elif op.code == OK:
        yield state.removed(name), DONE


def _sending(op: Operation, state: State, number: int, then: Phase) -> Steps:
    """Reserve a try; refused while another is away, or where the login is known to be rejected."""
    if not state.generation(number).living or state.breaker:
        yield from ends(op.code == REFUSED, state)
    elif state.flying:
        yield from ends(op.failed(CONFLICT, "another canary"), state)
    else:
        yield replace(state, flying=True), then


def _sent(state: State, made: Made) -> tuple[int, bool]:
    """Return the password of a try, and whether it sends client_ids other than now: the partner knows none of them."""
    return made[1], any(state.client_id(name) != client_id for name, client_id in made[2])


def _answered(op: Operation, state: State, sent: tuple[int, bool], then: Phase) -> Steps:
    """Take the partner's answer to the password and client_ids that were sent; `then` follows a good one."""
    landed, (password, unknown) = replace(state, flying=False), sent
    if password in state.good and not unknown:
        yield landed.noted("tried", password), then
    elif password in state.good:
        yield from ends(op.failed(REFUSED, "client_rejected"), landed)
    elif op.failed(REFUSED, "login_rejected"):
        yield replace(landed, breaker=True), DONE


def _canary(op: Operation, state: State, phase: Phase) -> Steps:
    number = op.arguments["generation"]
    match phase:
        case ("start",):
            made = _made_of(state, number)
            if state.current and made[1] < _made_of(state, state.current.number)[1]:
                yield from ends(op.failed(REFUSED, "older password"), state)
            else:
                yield state, ("try", number, made)
        case ("try", number, made):
            yield from _trying(op, state, number, made, ("sent", _sent(state, made)))
        case ("sent", sent):
            yield from _answered(op, state, sent, ("answered",))
        case _:
            yield from ends(op.came_to(number), state)


Made = tuple[int, int, frozenset[tuple[str, str]]]  # key, password, client_ids


def _made_of(state: State, number: int) -> Made:
    whole = state.whole(number)
    return whole.key, whole.password, whole.ids


def _trying(op: Operation, state: State, number: int, made: Made, then: Phase) -> Steps:
    """Reserve a try of the set that was read; refused if the generation makes another one by now."""
    allowed = state.generation(number).living and not state.breaker and not state.flying
    if allowed and _made_of(state, number) != made:
        yield from ends(op.failed(CONFLICT, "another set"), state)
    else:
        yield from _sending(op, state, number, then)


def _promote(op: Operation, state: State, phase: Phase) -> Steps:
    match phase:
        case ("start",):
            yield from _choosing(op, state)
        case _:
            yield from _making_current(op, state, phase, "promote")


def _choosing(op: Operation, state: State) -> Steps:
    free, current = state.free(), state.current
    chosen = op.arguments.get("generation") or (free[-1].number if free else 0)
    if not chosen and current:
        yield from ends(op.came_to(current.number), state)
    elif not chosen:
        yield from ends(op.failed(REFUSED, "no candidate"), state)
    elif current and state.generation(chosen).stage == "previous" and _brings_nothing(state, chosen):
        yield from ends(op.came_to(current.number), state)
    elif current and 0 < state.generation(chosen).key < current.key and op.failed(REFUSED, "before the current"):
        yield state, DONE  # its certificate was signed earlier; by less than a second, it ends at the same time
    else:
        yield from _beginning(op, state, chosen, "promote")


def _rollback(op: Operation, state: State, phase: Phase) -> Steps:
    match phase:
        case ("start",):
            yield from _looking_back(op, state)
        case _:
            yield from _making_current(op, state, phase, "roll_back")


def _looking_back(op: Operation, state: State) -> Steps:
    current, number = state.current, op.arguments.get("generation", 0)
    wanted = state.generation(number) if number else None
    back = current and (wanted is None or _brings_nothing(state, wanted.number))
    if current and (wanted is current or (back and any(map(state.rolled_back, state.generations)))):
        yield from ends(op.came_to(current.number), state)
    elif wanted:
        yield from _beginning(op, state, wanted.number, "roll_back")
    else:
        before = [g for g in state.generations if current and g.order == current.order - 1 and g.stage == "previous"]
        if before:
            yield from _beginning(op, state, before[0].number, "roll_back")
        else:
            yield from ends(op.failed(REFUSED, "no previous generation"), state)


def _brings_nothing(state: State, number: int) -> bool:
    return state.current is not None and state.brings(number) == (state.current.key, frozenset())


def _beginning(op: Operation, state: State, wanted: int, move: str) -> Steps:
    """Refuse what the table does not have; else bring a certificate back, if that is what it takes."""
    generation = state.generation(wanted)
    if generation.stage == "current":
        yield from ends(op.came_to(wanted), state)
    elif not _may_start(state, generation, move):
        yield from ends(op.failed(REFUSED, f"generation {wanted}", generation.stage), state)
    elif state.known(state.slot(generation)) and not op.arguments.get("forced"):
        yield from ends(op.failed(REFUSED, f"generation {wanted}", "others know"), state)
    else:
        yield state, ("restore", wanted, state.current.number if state.current else 0)


def _may_start(state: State, generation: Generation, move: str) -> bool:
    if generation.stage == "candidate":
        return move == "promote" or state.reuses_certificate(generation)
    return generation.stage == "previous" and state.rolled_back(generation) is (move == "promote")


def _making_current(op: Operation, state: State, phase: Phase, move: str) -> Steps:
    match phase:
        case ("restore", wanted, displaced):
            yield from _restoring(op, state, wanted, displaced, move)
        case ("sending", target, order, made, back, displaced):
            then = ("sent", target, order, made, back, displaced, _sent(state, made))
            yield from _trying(op, state, target, made, then)
        case ("sent", target, order, made, back, displaced, sent):
            step = "back" if back else "finish"
            yield from _answered(op, state, sent, (step, target, order, made, back, displaced))
        case ("back", *rest, back, displaced):
            number, sent = back
            free = state.generation(number).living and not state.breaker and not state.flying
            free = free and _made_of(state, number) == sent
            yield (
                replace(state, flying=True) if free else state,
                ("returning" if free else "finish", *rest, back, displaced),
            )
        case ("returning", *rest, back, displaced):
            rejected = back[1][1] not in state.good
            landed = replace(state, flying=False, breaker=state.breaker or rejected)
            landed = landed if rejected else landed.noted("tried", back[1][1])
            yield landed, ("finish", *rest, back, displaced)
        case ("finish", target, order, made, _, displaced):
            yield from _finishing(op, state, (target, order, made, displaced), move)


def _restoring(op: Operation, state: State, wanted: int, displaced: int, move: str) -> Steps:
    """Bring the certificate of a previous generation back over a newer password, as a candidate."""
    generation, current, after = state.generation(wanted), state.current, state
    if generation.stage == "previous" and current:
        if _brings_nothing(state, wanted):
            yield from ends(op.failed(REFUSED, f"generation {wanted}"), state)
            return
        key, ids = state.brings(wanted)
        made = [c for c in state.candidates() if (c.key, c.password, c.ids) == (key, 0, ids)]
        if generation.password != current.password and not made:
            after = state.born(key, 0, ids)
            made = [after.generations[-1]]
        wanted = made[-1].number if made else wanted
    target = after.generation(wanted)
    if target.stage == "current":
        yield from ends(op.came_to(wanted), after)
    elif not _may_start(after, target, move):
        yield from ends(op.failed(REFUSED, f"generation {wanted}", target.stage), after)
    else:
        made_of, current = _made_of(after, wanted), after.current
        same = move == "promote" and current and current.password == made_of[1]
        back = (current.number, _made_of(after, current.number)) if same and current else ()
        step = "finish" if op.arguments.get("forced") and move == "roll_back" else "sending"
        yield after, (step, wanted, target.order, made_of, back, displaced)


def _finishing(op: Operation, state: State, seen: tuple[int, int, Made, int], move: str) -> Steps:
    """Make the set that was tried current, if nothing else became current meanwhile that matters to it."""
    target, order, made, displaced = seen
    generation, current = state.generation(target), state.current
    changed = generation.stage in ("candidate", "previous") and _made_of(state, target) != made
    if generation.stage == "current":
        yield from ends(op.came_to(target), state)
    elif generation.stage == "previous" and generation.order != order:
        yield from ends(op.failed(CONFLICT, "roll-back", f"generation {target}"), state)
    elif current and (changed or (move == "roll_back" and displaced not in (0, current.number))):
        yield from ends(op.failed(CONFLICT, f"generation {current.number}"), state)
    elif not _may_start(state, generation, move):
        yield from ends(op.failed(REFUSED, f"generation {target}", generation.stage), state)
    elif current and generation.stage == "previous" and generation.password != current.password:
        yield from ends(op.failed(CONFLICT, f"generation {current.number}"), state)
    elif op.came_to(target):
        yield state.staged(target, "current", move=move).noted("promoted", made[1]), DONE


def _reject(op: Operation, state: State, _: Phase) -> Steps:
    generation = state.generation(op.arguments["generation"])
    if generation.stage in ("candidate", "rejected"):
        if op.code == OK:
            yield (state if generation.stage == "rejected" else state.staged(generation.number, "rejected")), DONE
    else:
        yield from ends(op.failed(REFUSED, f"generation {generation.number}", generation.stage), state)


COMMANDS: Final[Model[State]] = {
    "csr new": request_model.csr_new,
    "csr cancel": request_model.cancel,
    "csr refused": request_model.cancel,
    "csr submit": request_model.submit,
    "cert import": _import,
    "account set": _account_set,
    "app add": _app_add,
    "app set": _app_set,
    "app remove": _app_remove,
    "password set": secret_model.password_set,
    "password rotate": secret_model.password_rotate,
    "lease revoke": secret_model.lease_revoke,
    "lease key": secret_model.lease_key,
    "rotation snooze": _snooze,
    "rotation canary": numbered(_canary),
    "rotation promote": numbered(_promote),
    "rotation rollback": numbered(_rollback),
    "rotation reject": numbered(_reject),
    "rotation retire": numbered(secret_model.retire),
    "rotation revoked": numbered(request_model.revoked),
}
