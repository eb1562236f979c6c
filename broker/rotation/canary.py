"""Errors for the partner's answers to a try: refused, or no answer about the set."""

from __future__ import annotations

from broker.errors import PartnerUnavailableError, RefusedError
from broker.model.names import AccountName
from broker.partners.verdict import Verdict
from broker.rotation.ports import CanaryResult


class CanaryRefusedError(RefusedError):
    """The partner did not accept the set."""

    def __init__(self, name: AccountName, number: int, answer: CanaryResult) -> None:
        super().__init__(_message(name, number, answer), hint=_hint(name, number, answer))
        self.verdict = answer.verdict


class CanaryUnansweredError(PartnerUnavailableError):
    """The partner gave no answer about the set."""

    def __init__(self, name: AccountName, number: int, answer: CanaryResult) -> None:
        super().__init__(
            _message(name, number, answer), hint=f"nothing was changed; {answer.verdict.hint or 'try again later'}"
        )
        self.verdict = answer.verdict


def require_ok(name: AccountName, number: int, answer: CanaryResult) -> None:
    """Raise `CanaryUnansweredError` or `CanaryRefusedError` unless the partner accepted generation `number`."""
    if answer.verdict is Verdict.OK:
        return
    if answer.verdict in (Verdict.PARTNER_DOWN, Verdict.QUOTA):
        raise CanaryUnansweredError(name, number, answer)
    raise CanaryRefusedError(name, number, answer)


def _message(name: AccountName, number: int, answer: CanaryResult) -> str:
    detail = f" ({answer.detail})" if answer.detail else ""
    return f"the partner's answer to generation {number} of {name} is {answer.verdict.value}{detail}"


def _hint(name: AccountName, number: int, answer: CanaryResult) -> str:
    hint = answer.verdict.hint.replace("ACCOUNT", str(name))
    if answer.application:
        hint = hint.replace("APPLICATION", answer.application)
    if answer.verdict in (Verdict.LOGIN_REJECTED, Verdict.WRONG_CA):  # their hints are enough
        return hint
    return f"{hint}; broker explain {name} --generation {number} prints the redacted request for the partner's support"
