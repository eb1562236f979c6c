"""What each command does to a small account: from a state, to those that the command's own words allow.

The rules of DESIGN.md a second time, as steps: what a command reads and what it writes in one go is one step. A step
that yields nothing contradicts what the command said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from tests.chaos.account_model import Generation, Request, State
from tests.chaos.linearizable import DONE, START, Model, Operation, Phase

__all__ = ["COMMANDS"]

OK, USAGE, REFUSED, CONFLICT = 0, 2, 6, 8
Steps = Iterator[tuple[State, Phase]]
Rule = Callable[[Operation, State, Phase], Steps]


def _ends(fits: bool, state: State) -> Steps:
    """End in `state`, if that fits what the command said."""
    if fits:
        yield state, DONE


def _csr_new(op: Operation, state: State, phase: Phase) -> Steps:
    if phase == START and op.arguments.get("supersede") and state.open:
        yield state, ("close", state.open.number)
    elif phase[0] == "close":
        request = state.request(phase[1])
        if request.status in ("open", "superseded"):
            yield state.with_request(replace(request, status="superseded")), ("draft",)
        else:
            yield from _ends(op.told(CONFLICT, f"request {request.number}", request.status), state)
    elif phase[0] == "slot":
        yield from _drafting(op, state, phase[1])
    elif state.open:
        yield from _ends(op.came_to(state.open.number), state)
    else:
        yield state, ("slot", len(state.requests) + 1)


def _drafting(op: Operation, state: State, slot: int) -> Steps:
    """Open request `slot`, or be given the winner's, or be told what became of it."""
    if slot > len(state.requests):
        yield from _ends(op.came_to(slot), state.with_request(Request(slot)))
    elif state.request(slot).status == "open":
        yield from _ends(op.came_to(slot), state)
    else:
        yield from _ends(op.told(CONFLICT, f"request {slot}", state.request(slot).status), state)


def _cancel(op: Operation, state: State, phase: Phase) -> Steps:
    why = "rejected" if op.arguments.get("rejected") else "cancelled"
    if phase == START:
        last = state.requests[-1:]
        if last and last[0].status in ("open", why):  # again, it has nothing left to do
            yield state, ("close", last[0].number)
        else:
            yield from _ends(op.told(REFUSED, "no open signing request"), state)
        return
    request = state.request(phase[1])
    if request.status in ("open", why):
        if op.came_to(request.number):
            yield state.with_request(replace(request, status=why)), DONE
    else:
        yield from _ends(op.told(CONFLICT, f"request {request.number}", request.status), state)


def _submit(op: Operation, state: State, phase: Phase) -> Steps:
    if phase == START:
        if state.open:
            yield state, ("send", state.open.number)
        else:
            yield from _ends(op.told(REFUSED, "no open signing request"), state)
        return
    request = state.request(phase[1])
    if request.status != "open":
        yield from _ends(op.told(REFUSED, f"request {request.number}", request.status), state)
    elif op.came_to(request.number):
        yield state.with_request(replace(request, sent=request.sent | {op.arguments["reference"]})), DONE


def _import(op: Operation, state: State, _: Phase) -> Steps:
    request = state.request(op.arguments["request"])
    known = next((g for g in state.generations if g.key == request.number), None)
    if known is None and request.status != "open":
        yield from _ends(op.told(REFUSED, f"request {request.number}", request.status), state)
        return
    after = state
    if known is None:
        password = state.current.password if state.current else state.password
        after = state.with_request(replace(request, status="answered")).born(request.number, password)
        known = after.generations[-1]
    name = op.arguments.get("application")
    if name and state.client_id(name) not in (None, "", op.arguments["client_id"]):
        yield from _ends(op.told(REFUSED, name), state)
        return
    if name:
        after = after.with_application(name, op.arguments["client_id"])
    yield from _ends(op.came_to(known.number), after)


def _app_add(op: Operation, state: State, _: Phase) -> Steps:
    name, wanted = op.arguments["application"], op.arguments.get("client_id", "")
    there = state.client_id(name)
    if there is not None and wanted and there != wanted:
        yield from _ends(op.told(CONFLICT, name), state)
    elif op.code == OK:
        yield state.with_application(name, wanted or there or ""), DONE


def _app_set(op: Operation, state: State, _: Phase) -> Steps:
    name = op.arguments["application"]
    if state.client_id(name) is None:
        yield from _ends(op.told(USAGE, name), state)
    elif op.code == OK:
        yield state.with_application(name, op.arguments["client_id"]), DONE


def _app_remove(op: Operation, state: State, _: Phase) -> Steps:
    name = op.arguments["application"]
    if state.client_id(name) is None:
        yield from _ends(op.told(USAGE, name), state)
    elif op.code == OK:
        yield replace(state, applications=frozenset(a for a in state.applications if a[0] != name)), DONE


def _password_set(op: Operation, state: State, phase: Phase) -> Steps:
    if phase == START:
        good = state.good | ({state.taken + 1} if op.arguments.get("good") else set())
        yield replace(state, taken=state.taken + 1, good=good), ("name", state.taken + 1)
    elif state.password > phase[1]:
        yield from _ends(op.told(CONFLICT, f"password {state.password}"), state)
    elif op.came_to(phase[1]):
        yield _varied(replace(state, password=phase[1], breaker=False)), DONE


def _varied(state: State) -> State:
    candidates = state.candidates()
    model = state.current or (candidates[-1] if candidates else None)
    if model is None or model.password == state.password:
        return state
    outdated = next((c for c in reversed(candidates) if _tries_a_password(state, c)), None)
    after = state.staged(outdated.number, "rejected") if outdated else state
    return after.born(model.key, state.password, instead_of=outdated)


def _tries_a_password(state: State, candidate: Generation) -> bool:
    if state.current is None:
        return True
    if not candidate.base or candidate.held or candidate.restores:
        return False
    base = state.generation(candidate.base)
    return candidate.key == base.key and candidate.password != base.password


def _sending(op: Operation, state: State, number: int, then: Phase) -> Steps:
    """Reserve a try; refused while another is away, or where the login is known to be rejected."""
    if not state.generation(number).living or state.breaker:
        yield from _ends(op.code == REFUSED, state)
    elif state.flying:
        yield from _ends(op.told(CONFLICT, "another canary"), state)
    else:
        yield replace(state, flying=True), then


def _answered(op: Operation, state: State, number: int, then: Phase) -> Steps:
    """Take the partner's answer; `then` follows a good one."""
    landed = replace(state, flying=False)
    if state.generation(number).password in state.good:
        yield landed, then
    elif op.told(REFUSED, "login_rejected"):
        yield replace(landed, breaker=True), DONE


def _numbered(rule: Rule) -> Rule:
    """Refuse what names a generation that is not there, before the rule looks at it."""

    def checked(op: Operation, state: State, phase: Phase) -> Steps:
        number = op.arguments.get("generation", 0)
        if phase == START and number > len(state.generations):
            return _ends(op.told(USAGE, f"generation {number}"), state)
        return rule(op, state, phase)

    return checked


def _canary(op: Operation, state: State, phase: Phase) -> Steps:
    number = op.arguments["generation"]
    if phase == START:
        yield from _sending(op, state, number, ("sent",))
    elif phase == ("sent",):
        yield from _answered(op, state, number, ("answered",))
    else:
        yield from _ends(op.came_to(number), state)


def _promote(op: Operation, state: State, phase: Phase) -> Steps:
    match phase:
        case ("start",):
            yield from _choosing(op, state)
        case ("join", chosen):
            yield from _joining(op, state, chosen)
        case ("try", number, *rest):
            yield from _sending(op, state, number, ("sent", number, *rest))
        case ("sent", number, held, back):
            yield from _answered(op, state, number, ("back" if back else "finish", number, held, back))
        case ("back", *rest, back):
            free = state.generation(back).living and not state.breaker and not state.flying
            yield replace(state, flying=True) if free else state, ("returning" if free else "finish", *rest, back)
        case ("returning", *rest, back):
            rejected = state.generation(back).password not in state.good
            yield replace(state, flying=False, breaker=state.breaker or rejected), ("finish", *rest, back)
        case ("finish", number, held, _):
            if state.generation(number).held and not held:
                yield from _ends(op.told(CONFLICT, "roll-back", f"generation {number}"), state)
            else:
                yield from _arriving(op, state, number, "previous")


def _choosing(op: Operation, state: State) -> Steps:
    free = [g.number for g in state.candidates() if not g.held and not g.restores]
    chosen, current = op.arguments.get("generation") or (free[-1] if free else 0), state.current
    if not chosen and current:
        yield from _ends(op.came_to(current.number), state)
    elif chosen:
        yield state, ("join", state.newest_form(chosen).number)
    else:
        yield from _ends(op.told(REFUSED, "no candidate"), state)


def _joining(op: Operation, state: State, chosen: int) -> Steps:
    """Join a candidate to what became current since it was made."""
    candidate, current, after = state.generation(chosen), state.current, state
    if candidate.stage == "candidate" and current and candidate.base != current.number:
        base = state.generation(candidate.base) if candidate.base else None
        parts = [
            _merged(getattr(candidate, part), getattr(base, part, 0), getattr(current, part))
            for part in ("key", "password")
        ]
        if 0 in parts:
            yield from _ends(op.told(CONFLICT, f"generation {current.number}"), state)
            return
        after = state.staged(chosen, "rejected")
        if parts != [current.key, current.password]:
            after = after.born(*parts, restores=candidate.restores, instead_of=candidate)
    form = after.newest_form(chosen)
    back = current.number if current and current.password == form.password else 0
    if form.stage == "current":
        yield from _ends(op.came_to(form.number), after)
    elif form.stage == "candidate":
        yield after, ("try", form.number, form.held, back)
    else:
        yield from _ends(op.told(REFUSED, f"generation {form.number}", form.stage), after)


def _merged(ours: int, base: int, theirs: int) -> int:
    if ours in (base, theirs):
        return theirs
    return ours if theirs == base else 0


def _arriving(op: Operation, state: State, number: int, displaced: str) -> Steps:
    """Make a generation current, where the table of moves and what became current meanwhile allow it."""
    generation, current = state.generation(number), state.current
    if generation.stage == "current":
        yield from _ends(op.came_to(number), state)
        return
    back = displaced == "candidate"
    may_start = generation.stage == "candidate" and (not back or generation.restores)
    if not may_start and not (back and generation.stage == "previous"):
        yield from _ends(op.told(REFUSED, f"generation {number}", generation.stage), state)
        return
    stale = generation.base != current.number if current and generation.stage == "candidate" else False
    unproven = current is not None and generation.stage == "previous" and generation.password != current.password
    if stale or unproven:
        if current and op.told(CONFLICT, f"generation {current.number}"):
            yield state, DONE
    elif op.came_to(number):
        yield state.staged(number, "current", displaced=displaced), DONE


def _rollback(op: Operation, state: State, phase: Phase) -> Steps:
    now = state.current.number if state.current else 0
    match phase:
        case ("start",):
            yield from _looking_back(op, state)
        case ("restore", wanted, displaced):
            yield from _restoring(op, state, wanted, displaced)
        case ("try", number, displaced):
            yield from _sending(op, state, number, ("sent", number, displaced))
        case ("sent", number, displaced):
            yield from _answered(op, state, number, ("finish", number, displaced))
        case ("finish", number, displaced):
            if displaced and now not in (number, displaced):
                yield from _ends(op.told(CONFLICT, f"generation {now}"), state)
            else:
                yield from _arriving(op, state, number, "candidate")


def _looking_back(op: Operation, state: State) -> Steps:
    current = state.current
    wanted = op.arguments.get("generation") or _way_back(state)
    if not wanted:
        yield from _ends(op.told(REFUSED, "no previous generation"), state)
    elif current and wanted in (current.number, current.restores):
        yield from _ends(op.came_to(current.number), state)
    else:
        yield state, ("restore", wanted, current.number if current else 0)


def _way_back(state: State) -> int:
    current = state.current
    if current and any(g.held and g.since == current.since for g in state.candidates()):
        return current.number
    previous = [(g.since, g.number) for g in state.generations if g.stage == "previous"]
    return max(previous, default=(0, 0))[1]


def _restoring(op: Operation, state: State, wanted: int, displaced: int) -> Steps:
    """Join the old certificate to the newest proven password, where that changed since."""
    generation, current, after = state.generation(wanted), state.current, state
    made = [g for g in state.candidates() if current and g.restores == wanted and g.base == current.number]
    if generation.stage == "previous" and current and generation.password != current.password and not made:
        if generation.key == current.key:
            yield from _ends(op.told(REFUSED, f"generation {wanted}"), state)
            return
        after = state.born(generation.key, current.password, restores=wanted)
        made = [after.generations[-1]]
    target = made[-1].number if made else wanted
    probe = replace(op, code=OK, number=target)
    if not list(_arriving(probe, after, target, "candidate")):  # refused untried: by what, the same rule says
        yield from _arriving(op, after, target, "candidate")
    else:
        yield after, ("finish" if op.arguments.get("forced") else "try", target, displaced)


def _reject(op: Operation, state: State, _: Phase) -> Steps:
    generation = state.generation(op.arguments["generation"])
    if generation.stage in ("candidate", "rejected"):
        if op.code == OK:
            yield (state if generation.stage == "rejected" else state.staged(generation.number, "rejected")), DONE
    else:
        yield from _ends(op.told(REFUSED, f"generation {generation.number}", generation.stage), state)


def _retire(op: Operation, state: State, phase: Phase) -> Steps:
    """Count who holds it, then retire it, unless it was current again in between."""
    generation = state.generation(op.arguments["generation"])
    if generation.stage not in ("previous", "rejected", "retired") and phase == START:
        yield from _ends(op.told(REFUSED, f"generation {generation.number}", generation.stage), state)
    elif phase == START:
        yield state, ("counted", generation.since)
    elif generation.living and generation.since != phase[1]:
        yield from _ends(op.told(CONFLICT, f"generation {generation.number}"), state)
    elif op.code == OK:
        yield (state if generation.stage == "retired" else state.staged(generation.number, "retired")), DONE


COMMANDS: Final[Model[State]] = {
    "csr new": _csr_new,
    "csr cancel": _cancel,
    "csr submit": _submit,
    "cert import": _import,
    "app add": _app_add,
    "app set": _app_set,
    "app remove": _app_remove,
    "password set": _password_set,
    "rotation canary": _numbered(_canary),
    "rotation promote": _numbered(_promote),
    "rotation rollback": _numbered(_rollback),
    "rotation reject": _numbered(_reject),
    "rotation retire": _numbered(_retire),
}
