"""An account at a time: the facts that its next step and its plan follow from."""

from datetime import datetime

from msgspec import Struct

from broker.model.account import Account
from broker.model.due import DueDate, LeadTime, Renewal, account_due, lead_time
from broker.model.generation import Generation, SigningRequest
from broker.model.stage import Stage


class Situation(Struct, frozen=True, gc=False):
    """An account at a time. What is None or empty does not apply."""

    account: Account
    renewal: Renewal
    now: datetime
    due: DueDate | None  # of the current certificate
    current: Generation | None
    candidate: Generation | None  # the newest that a machine may promote
    request: SigningRequest | None  # the open one
    refused: SigningRequest | None
    compromised: Generation | None
    kept: list[Generation]  # beside the current one

    @property
    def lead(self) -> LeadTime:
        """How long the partner's people take."""
        return self.due.lead if self.due else lead_time(self.account, self.renewal.lead_time)


def situation(account: Account, renewal: Renewal, now: datetime) -> Situation:
    """Return the situation of `account` now, by the renewal times of its profile."""
    return Situation(
        account,
        renewal,
        now,
        account_due(account, renewal),
        account.current,
        account.automatic_candidate,
        account.open_request,
        account.refused_request,
        account.compromised,
        kept_beside(account),
    )


def kept_beside(account: Account) -> list[Generation]:
    """Return the generations that are kept beside the current one until the overlap is over."""
    return [g for g in account.generations if g.stage is Stage.PREVIOUS and not account.rolled_back(g)]
