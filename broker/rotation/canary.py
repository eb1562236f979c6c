"""Try a generation against the partner, never more often than the account allows."""

from __future__ import annotations

import secrets
from datetime import datetime

from broker.errors import PartnerUnavailableError, RefusedError
from broker.model.account import Account
from broker.model.changes import breaker_reset, canary_answered, canary_sent
from broker.model.clock import Clock
from broker.model.generation import Try
from broker.model.names import AccountName
from broker.partners.verdict import Verdict
from broker.rotation.amend import amend
from broker.rotation.ports import Accounts, Answer, Canary

__all__ = ["CanaryRefusedError", "CanaryUnansweredError", "require_ok", "reset_breaker", "try_out"]


class CanaryRefusedError(RefusedError):
    """The partner did not accept the set."""

    def __init__(self, name: AccountName, number: int, answer: Answer) -> None:
        super().__init__(_said(name, number, answer), hint=_hint(name, number, answer))
        self.verdict = answer.verdict


class CanaryUnansweredError(PartnerUnavailableError):
    """The partner gave no answer that says anything about the set."""

    def __init__(self, name: AccountName, number: int, answer: Answer) -> None:
        super().__init__(
            _said(name, number, answer), hint=f"nothing was changed; {answer.verdict.hint or 'try again later'}"
        )
        self.verdict = answer.verdict


def try_out(name: AccountName, number: int, *, accounts: Accounts, canary: Canary, clock: Clock, by: str) -> Answer:
    """Prepare a try, reserve it in the account, send it, and store the verdict.

    Killed in between, the try stays on the account without an answer, and counts: a crash that repeats cannot lock
    the login out unseen. Raise what `canary_sent` raises where no try is allowed.
    """
    id_ = secrets.token_hex(8)
    seen = accounts.read(name).account
    send = canary(seen, seen.generation(number))
    account = amend(accounts, name, lambda newest: canary_sent(newest, number, id_, at=clock(), by=by))
    attempt = next(t for t in account.tries if t.id == id_)
    answer = send()

    def store(newest: Account) -> Account:
        sent = next((a for a in seen.applications if _client(answer) and a.name == answer.application), None)
        return canary_answered(
            newest,
            attempt.number,
            answer.verdict.value,
            login_rejected=answer.verdict is Verdict.LOGIN_REJECTED,
            client_rejected=sent.name if sent in newest.applications else "",  # it may have another client_id by now
            wait=answer.wait,
            at=_when_answered(attempt, clock),
            by=by,
        )

    amend(accounts, name, store)
    return answer


def require_ok(name: AccountName, number: int, answer: Answer) -> None:
    """Raise `CanaryUnansweredError` or `CanaryRefusedError` unless the partner accepted generation `number`."""
    if answer.verdict is Verdict.OK:
        return
    if answer.verdict in (Verdict.PARTNER_DOWN, Verdict.QUOTA):
        raise CanaryUnansweredError(name, number, answer)
    raise CanaryRefusedError(name, number, answer)


def reset_breaker(name: AccountName, reason: str, *, accounts: Accounts, clock: Clock, by: str) -> Account:
    """Allow tries again, because a person says so."""
    return amend(accounts, name, lambda account: breaker_reset(account, reason=reason, at=clock(), by=by))


def _when_answered(attempt: Try, clock: Clock) -> datetime:
    """Return the time, of the sending if the clock went wrong since: a verdict is stored whatever the clock says."""
    try:
        return clock()
    except RefusedError:
        return attempt.at


def _client(answer: Answer) -> bool:
    return answer.verdict is Verdict.CLIENT_REJECTED


def _said(name: AccountName, number: int, answer: Answer) -> str:
    detail = f" ({answer.detail})" if answer.detail else ""
    return f"the partner's answer to generation {number} of {name} is {answer.verdict.value}{detail}"


def _hint(name: AccountName, number: int, answer: Answer) -> str:
    hint = answer.verdict.hint.replace("ACCOUNT", str(name))
    if answer.application:
        hint = hint.replace("APPLICATION", answer.application)
    if answer.verdict in (Verdict.LOGIN_REJECTED, Verdict.WRONG_CA):  # to ask for more would not help a person
        return hint
    return f"{hint}; broker explain {name} --generation {number} prints the redacted request for the partner's support"
