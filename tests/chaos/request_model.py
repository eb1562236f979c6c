"""The model of the commands of signing requests, and of keys that others know."""

from __future__ import annotations

from broker.copies import replace
from tests.chaos.account_model import Request, State
from tests.chaos.linearizable import DONE, START, Operation, Phase
from tests.chaos.model_steps import CONFLICT, OK, REFUSED, Steps, ends

__all__ = ["cancel", "csr_new", "revoked", "submit"]


def csr_new(op: Operation, state: State, phase: Phase) -> Steps:
    """`csr new`, as each of its options has it."""
    reuse = op.arguments.get("reuse-key")
    if phase == START and reuse and not _reusable(state):
        yield from ends(op.code == REFUSED, state)
    elif phase == START and op.arguments.get("supersede") and state.open:
        yield state, ("close", state.open.number)
    elif phase == START and op.arguments.get("compromised"):
        yield from _reporting(op, state)
    elif phase[0] == "close":
        request = state.request(phase[1])
        if request.status in ("open", "superseded"):
            yield state.with_request(replace(request, status="superseded")), ("draft",)
        else:
            yield from ends(op.failed(CONFLICT, f"request {request.number}", request.status), state)
    elif phase[0] == "slot":
        yield from _drafting(op, state, phase[1])
    elif reuse:
        yield from _drafting_again(op, state, phase)
    elif state.open:
        yield from ends(op.came_to(state.open.number), state)
    else:
        yield state, ("slot", len(state.requests) + 1)


def _drafting(op: Operation, state: State, slot: int) -> Steps:
    """Open request `slot`, or be given the winner's, or get a conflict that names its state."""
    if slot > len(state.requests):
        yield from ends(op.came_to(slot), state.with_request(Request(slot, key=slot)))
    elif state.request(slot).status == "open":
        yield from ends(op.came_to(slot), state)
    else:
        yield from ends(op.failed(CONFLICT, f"request {slot}", state.request(slot).status), state)


def _reporting(op: Operation, state: State) -> Steps:
    if state.current is None:
        yield from ends(op.failed(REFUSED, "no current generation"), state)
    else:
        suspended = state.suspended or op.arguments["compromised"] == "suspend"
        yield replace(state.compromised(), suspended=suspended), ("draft",)


def _reusable(state: State) -> bool:
    return state.reuse and state.current is not None and not state.known(state.slot(state.current))


def _drafting_again(op: Operation, state: State, phase: Phase) -> Steps:
    """Sign with the current key, then open a request with it, unless another is open by then."""
    slot = state.slot(state.current) if state.current else 0
    if phase[0] != "signed":
        if _reusable(state):
            yield state, ("signed", slot, len(state.requests) + 1)
        else:
            yield from ends(op.code == REFUSED, state)
        return
    key, number = phase[1:]
    if not state.open and len(state.requests) < number:
        if not _reusable(state):
            yield from ends(op.code == REFUSED, state)
            return
        if slot != key:
            yield from ends(op.failed(CONFLICT, "became current meanwhile"), state)
            return
        state = state.with_request(Request(number, key=key))
    if state.open and state.open.key == key:
        yield from ends(op.came_to(state.open.number), state)
    else:
        yield from ends(op.failed(CONFLICT, "with another key"), state)


def cancel(op: Operation, state: State, phase: Phase) -> Steps:
    """`csr cancel` and `csr refused`."""
    why = "rejected" if op.name == "csr refused" else "cancelled"
    if phase == START:
        last = state.requests[-1:]
        if last and last[0].status in ("open", why):  # again, it has nothing left to do
            yield state, ("close", last[0].number)
        else:
            yield from ends(op.failed(REFUSED, "no open signing request"), state)
        return
    request = state.request(phase[1])
    if request.status in ("open", why):
        if op.came_to(request.number):
            yield state.with_request(replace(request, status=why)), DONE
    else:
        yield from ends(op.failed(CONFLICT, f"request {request.number}", request.status), state)


def submit(op: Operation, state: State, phase: Phase) -> Steps:
    """`csr submit`."""
    if phase == START:
        if state.open:
            yield state, ("send", state.open.number)
        else:
            yield from ends(op.failed(REFUSED, "no open signing request"), state)
        return
    request = state.request(phase[1])
    if request.status != "open":
        yield from ends(op.failed(REFUSED, f"request {request.number}", request.status), state)
    elif op.came_to(request.number):
        yield state.with_request(replace(request, sent=request.sent | {op.arguments["reference"]})), DONE


def revoked(op: Operation, state: State, _: Phase) -> Steps:
    """`rotation revoked`."""
    slot = state.slot(state.whole(op.arguments["generation"]))
    known = [r for r in state.requests if r.key == slot and r.known]
    if not known:
        yield from ends(op.failed(REFUSED, "nobody reported"), state)
    elif not all(r.dead for r in known) and state.current and state.slot(state.current) == slot:
        yield from ends(op.failed(REFUSED, "is current"), state)
    else:
        requests = tuple(replace(r, dead=True) if r in known else r for r in state.requests)
        yield from ends(op.code == OK, replace(state, requests=requests))
