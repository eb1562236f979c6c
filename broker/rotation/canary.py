"""Errors for the partner's answers to a try: refused, or no answer about the set."""

from __future__ import annotations

from broker.errors import PartnerUnavailableError, RefusedError
from broker.model.names import AccountName
from broker.model.verdict import CanaryResult, Verdict


def require_ok(name: AccountName, number: int, answer: CanaryResult) -> None:
    """Raise `PartnerUnavailableError` or `RefusedError` unless the partner accepted generation `number`."""
    verdict, detail = answer.verdict, f" ({answer.detail})" if answer.detail else ""
    message = f"the partner's answer to generation {number} of {name} is {verdict.value}{detail}"
    if verdict in (Verdict.PARTNER_DOWN, Verdict.QUOTA):
        raise PartnerUnavailableError(message, hint=f"nothing was changed; {verdict.hint or 'try again later'}")
    if verdict is not Verdict.OK:
        raise RefusedError(message, hint=_hint(name, number, answer))


def _hint(name: AccountName, number: int, answer: CanaryResult) -> str:
    hint = answer.verdict.hint.replace("ACCOUNT", str(name))
    if answer.application:
        hint = hint.replace("APPLICATION", answer.application.name)
    if answer.verdict in (Verdict.LOGIN_REJECTED, Verdict.WRONG_CA):  # their hints are enough
        return hint
    return f"{hint}; broker explain {name} --generation {number} prints the redacted request for the partner's support"
