"""Ask before a partner's answer becomes useless, for every verb that can do so."""

from __future__ import annotations

import click

from broker.cli.options import confirm
from broker.model.account import Account
from broker.model.generation import SigningRequest, Submission

yes_option = click.option("--yes", is_flag=True, help="Skip the question before a partner's answer becomes useless.")


def require_consent(account: Account, request: SigningRequest, *, yes: bool) -> None:
    """Ask whether to lose `request`; raise `InputError` unless the answer is yes.

    Also for a request that is not recorded as sent: `csr new` printed its CSR, so it may have been sent by hand.
    """
    sent = "; ".join(map(_sent, request.submissions)) or "not recorded as sent"
    lost = "the partner's answer to it becomes useless"
    key = "its key is destroyed, and " if request.closed is None else ""
    confirm(f"signing request {request.number} of {account.name} ({sent}): {key}{lost}. Continue?", yes=yes)


def _sent(submission: Submission) -> str:
    to = submission.to or "no recorded address"
    reference = f", reference {submission.reference}" if submission.reference else ""
    return f"sent {submission.at:%F %TZ} to {to}{reference}"
