"""Note that a CSR went to the partner's people: from then on the lead time counts."""

from __future__ import annotations

from broker.errors import InputError
from broker.model.changes import submitted
from broker.model.generation import SigningRequest, Submission
from broker.model.names import AccountName
from broker.rotation.amend import amend
from broker.rotation.ports import Accounts

__all__ = ["submit"]


def submit(name: AccountName, number: int, submission: Submission, *, accounts: Accounts, by: str) -> SigningRequest:
    """Add `submission` to request `number`, whose CSR was sent; the same evidence a second time changes nothing.

    Raise `RefusedError` where it waits no longer: the lead time of another that was opened since must not begin;
    `InputError` where it was drafted later than sent.
    """
    request = accounts.read(name).account.request(number)
    if submission.at < request.drafted_at:
        raise InputError(
            f"signing request {request.number} was drafted at {request.drafted_at:%F %TZ}, after it is said to be sent",
            hint="--sent-at takes the time of the mail in UTC, such as 2026-03-01T09:30",
        )
    return amend(accounts, name, lambda newest: submitted(newest, number, submission, by=by)).request(number)
