"""Ask before a partner's answer becomes worthless: one guard for every verb that does so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.options import confirm

if TYPE_CHECKING:
    from broker.model.account import Account
    from broker.model.generation import SigningRequest, Submission

__all__ = ["require_consent", "yes_option"]

yes_option = click.option("--yes", is_flag=True, help="Do not ask before a partner's answer becomes worthless.")


def require_consent(account: Account, request: SigningRequest, *, yes: bool) -> None:
    """Say what is lost with `request`, and ask; raise `InputError` unless the answer is yes.

    Also for a request that is not noted as sent: `csr new` printed its CSR, and somebody may have mailed it by hand.
    """
    sent = "; ".join(map(_sent, request.submissions)) or "not noted as sent"
    lost = "the partner's answer to it becomes worthless"
    key = "its key is destroyed, and " if request.closed is None else ""
    confirm(f"signing request {request.number} of {account.name} ({sent}): {key}{lost}. Go on?", yes=yes)


def _sent(submission: Submission) -> str:
    to = submission.to or "nobody named"
    reference = f", reference {submission.reference}" if submission.reference else ""
    return f"sent {submission.at:%F %TZ} to {to}{reference}"
