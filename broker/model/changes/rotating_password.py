"""Changes of a password rotation: begun, steps that people confirm, ended or aborted."""

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.chain import Fact
from broker.model.changes.moving import moved
from broker.model.changes.writing import recorded, with_password_step
from broker.model.clock import Stamp
from broker.model.history import Event
from broker.model.password_rotation import PasswordRotation, PasswordStep
from broker.model.stage import Move


def rotation_begun(account: Account, stamp: Stamp) -> Account:
    """Begin to replace the current password, unless a rotation is under way."""
    if account.password_rotation:
        return account
    current = account.current.parts.password if account.current else 0
    if not current:
        raise RefusedError(
            f"{account.name} has no current password to replace",
            hint=f"broker status {account.name} shows its next step",
        )
    after = replace(account, password_rotation=PasswordRotation(current, stamp.at, stamp.by))
    after = with_password_step(after, PasswordStep.STORED, account.password, stamp)  # if it was stored before
    return _noted(after, "begun", stamp, old=current)


def step_confirmed(account: Account, step: PasswordStep, note: str, stamp: Stamp) -> Account:
    """Record that a person did `step`, after all steps before it. The last one ends the rotation."""
    rotation = _under_way(account)
    if rotation.done(step):
        return account
    first = rotation.next
    if first is not step:
        raise RefusedError(
            f"step {step.value} comes after step {first.value} ({first.meaning}), which is not done",
            hint=f"broker password rotate {account.name} shows the steps",
        )
    left = None if step is PasswordStep.DEAD else rotation.with_step(step, stamp, note)
    facts: dict[str, Fact] = {"note": note} if note else {}
    return _noted(replace(account, password_rotation=left), step.value, stamp, **facts)


def rotation_aborted(account: Account, reason: str, stamp: Stamp) -> Account:
    """End the rotation, and reject the candidate that it made."""
    rotation = _under_way(account)
    after = _noted(replace(account, password_rotation=None), "aborted", stamp, reason=reason)
    for candidate in after.candidates:
        if candidate.parts.password > rotation.old and not candidate.parts.certificate:
            after = moved(after, candidate.number, Move.REJECT, stamp, "the password rotation was aborted")
    return after


def _under_way(account: Account) -> PasswordRotation:
    if account.password_rotation:
        return account.password_rotation
    raise RefusedError(
        f"no password rotation of {account.name} is under way", hint=f"broker password rotate {account.name} begins one"
    )


def _noted(account: Account, step: str, stamp: Stamp, **facts: Fact) -> Account:
    return recorded(account, stamp, Event.PASSWORD_ROTATION, step=step, **facts)
