"""Errors for the partner's answers to a try: refused, or no answer about the set."""

from __future__ import annotations

from broker.errors import PartnerUnavailableError, RefusedError
from broker.model.names import AccountName
from broker.model.verdict import CanaryResult, Verdict


class CanaryRefusedError(RefusedError):
    """The partner did not accept the set."""

    verdict: Verdict


class CanaryUnansweredError(PartnerUnavailableError):
    """The partner gave no answer about the set."""

    verdict: Verdict


def require_ok(name: AccountName, number: int, answer: CanaryResult) -> None:
    """Raise `CanaryUnansweredError` or `CanaryRefusedError` unless the partner accepted generation `number`."""
    verdict, detail = answer.verdict, f" ({answer.detail})" if answer.detail else ""
    if verdict is Verdict.OK:
        return
    message = f"the partner's answer to generation {number} of {name} is {verdict.value}{detail}"
    if verdict in (Verdict.PARTNER_DOWN, Verdict.QUOTA):
        hint = f"nothing was changed; {verdict.hint or 'try again later'}"
        error: CanaryUnansweredError | CanaryRefusedError = CanaryUnansweredError(message, hint=hint)
    else:
        error = CanaryRefusedError(message, hint=_hint(name, number, answer))
    error.verdict = verdict
    raise error


def _hint(name: AccountName, number: int, answer: CanaryResult) -> str:
    hint = answer.verdict.hint.replace("ACCOUNT", str(name))
    if answer.application:
        hint = hint.replace("APPLICATION", answer.application.name)
    if answer.verdict in (Verdict.LOGIN_REJECTED, Verdict.WRONG_CA):  # their hints are enough
        return hint
    return f"{hint}; broker explain {name} --generation {number} prints the redacted request for the partner's support"
