"""The steps by which people change the password at the partner, and what was done of them."""

from datetime import datetime
from enum import Enum
from typing import Final, Self

from msgspec import Struct

from broker.copies import replace
from broker.model.clock import Stamp


class PasswordStep(Enum):
    """A step, in order. Those that are not done by hand are noted by the changes that do them."""

    ASKED = "asked"
    SET = "set"
    STORED = "stored"
    TRIED = "tried"
    PROMOTED = "promoted"
    DEAD = "dead"

    @property
    def meaning(self) -> str:
        """One line of description."""
        return _MEANINGS[self]

    @property
    def by_hand(self) -> bool:
        """True if only a person knows that it is done."""
        return self in BY_HAND


BY_HAND: Final = (PasswordStep.ASKED, PasswordStep.SET, PasswordStep.DEAD)
_MEANINGS: Final = {
    PasswordStep.ASKED: "the partner, or its portal, was asked for a new password",
    PasswordStep.SET: "the new password is set at the partner",
    PasswordStep.STORED: "it is stored here, in a candidate",
    PasswordStep.TRIED: "the partner accepts it",
    PasswordStep.PROMOTED: "consumers get it",
    PasswordStep.DEAD: "the partner no longer takes the old one",
}


class StepDone(Struct, frozen=True):
    """A step, when it was done, and by whom; without a time if it is not done."""

    step: PasswordStep
    at: datetime | None
    by: str
    note: str = ""


class PasswordRotation(Struct, frozen=True):
    """A change of the password that is under way. `old` is the number of the password that it replaces."""

    old: int
    begun_at: datetime
    begun_by: str
    steps: tuple[StepDone, ...] = ()

    @property
    def next(self) -> PasswordStep:
        """The first step that is not done."""
        done = {one.step for one in self.steps}
        return next(step for step in PasswordStep if step not in done)

    def done(self, step: PasswordStep) -> StepDone | None:
        """Return the record of `step`, None if it is not done."""
        return next((one for one in self.steps if one.step is step), None)

    def with_step(self, step: PasswordStep, stamp: Stamp, note: str = "") -> Self:
        """Return the rotation with `step` done. Another password that is stored is not tried yet.

        Once a password is promoted, it replaces the old one, and another password that is stored undoes no step.
        """
        kept = self.steps
        if step is PasswordStep.STORED and not self.done(PasswordStep.PROMOTED):
            kept = tuple(one for one in kept if one.step not in (PasswordStep.STORED, PasswordStep.TRIED))
        elif self.done(step):
            return self
        return replace(self, steps=(*kept, StepDone(step, stamp.at, stamp.by, note)))
