"""Custom requests: send one with a set, and explain an answer that is no success.

    BrokerError
    ├── UnknownNameError           404
    ├── AnswerRefusedError         the partner refused the set or the request
    └── NoAnswerError              it gave no usable answer, or asked us to back off

No error and no text holds a secret: the partner may repeat one, so all of it is redacted.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError, PartnerUnavailableError, RefusedError, UnknownNameError
from broker.model.authentication import Request
from broker.model.duration import duration_text
from broker.model.verdict import Verdict
from broker.network import Deadline
from broker.partners.verdict import ProbeFacts, Where, classify, wait
from broker.upstream.canary import detail_of, facts_of, number_of
from broker.upstream.credentials import Credentials
from broker.upstream.exchange import Line, Reply, asked

_LARGEST: Final = 64 * 1024 * 1024  # bytes of a body
_SAFE: Final = ("GET", "HEAD")
_SUCCESS, _REDIRECT, _CLIENT = 2, 3, 4  # the first digit of a status
_NOT_FOUND: Final = 404
_AMBIGUOUS: Final = (401, 403, 408, 429)  # their meaning is the verdict's
_QUOTAS: Final = {"1": "for the day", "2": "for the burst"}


class AnswerRefusedError(RefusedError):
    """The partner refused the set, or the request."""

    verdict: Verdict | None = None


class NoAnswerError(PartnerUnavailableError):
    """The partner gave no usable answer, or asked us to back off."""

    verdict: Verdict | None = None


class Calls(Struct, frozen=True):
    """Calls with one set, for the hints those of an application (account and name); `timeout` is for each exchange.

    `line` keeps a connection between them, if all may be sent twice.
    """

    credentials: Credentials
    application: tuple[str, str]
    timeout: timedelta
    line: Line | None = None

    def send(self, request: Request) -> Reply:
        """Return the partner's answer, whatever its status; raise `BrokerError` if there is none."""
        deadline = Deadline(self.timeout.total_seconds())
        ask = self.line.asked if self.line else partial(asked, self.credentials)
        found = ask(request, deadline, _LARGEST)
        if isinstance(found, Reply):
            return found
        raise self._error(found, request.method)

    def require_success(self, reply: Reply) -> None:
        """Raise an error of this file unless the answer is a success."""
        if reply.status // 100 != _SUCCESS:
            raise self._error(facts_of(reply), "GET")

    def shown(self, reply: Reply) -> Reply:
        """Return an answer without secrets. What is hidden is in characters, so other bytes stay as they are."""
        redact = self.credentials.redactor().redact
        body = redact(reply.body.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        return replace(reply, body=body)

    def document(self, reply: Reply) -> Any:
        """Return the JSON of an answer without secrets, None for an empty body; raise `NoAnswerError`."""
        return _hidden(parsed(reply), self.credentials.redactor().redact)

    def head(self, reply: Reply) -> list[str]:
        """Return status and headers without secrets."""
        redact = self.credentials.redactor().redact
        return [f"HTTP {reply.status}", *(redact(f"{name}: {value}") for name, value in reply.headers.items())]

    def _error(self, facts: ProbeFacts, method: str) -> BrokerError:
        detail, verdict, status = detail_of(facts, self.credentials), classify(facts, ()), facts.status or 0
        error: AnswerRefusedError | NoAnswerError
        if status == _NOT_FOUND:
            return UnknownNameError(f"the partner has nothing at this path: {detail}", hint="see the partner's lists")
        if verdict.refuses:
            error = AnswerRefusedError(f"{verdict.message}: {detail}", hint=verdict.remedy(*self.application))
        elif status // 100 == _REDIRECT:
            return AnswerRefusedError(f"the partner redirects, which is not followed: {detail}", hint="ask there")
        elif status // 100 == _CLIENT and status not in _AMBIGUOUS:
            return AnswerRefusedError(f"the partner refused the request: {detail}", hint="compare it with its guide")
        else:
            error = NoAnswerError(f"{verdict.message}: {detail}", hint=_again(facts, verdict, method))
        error.verdict = verdict
        return error


def parsed(reply: Reply) -> Any:
    """Return the JSON of an answer, which may hold secrets, None for an empty body; raise `NoAnswerError`."""
    if not reply.body.strip():
        return None
    with suppress(ValueError, RecursionError):
        return json.loads(reply.body)
    raise NoAnswerError("the answer is not JSON", hint="leave out --all, and -o")


def quota_of(reply: Reply) -> str:
    """Return what is left of the partner's quotas, "" if it does not say."""
    found = []
    for number, word in _QUOTAS.items():
        left = number_of(reply.headers, f"X-RateLimit-Remaining-{number}")
        limit = number_of(reply.headers, f"X-RateLimit-Limit-{number}")
        if left is not None:
            found.append(f"{left}{'' if limit is None else f' of {limit}'} {word}")
    return ", ".join(found)


def _again(facts: ProbeFacts, verdict: Verdict, method: str) -> str:
    if facts.where in (Where.FIRST_READ, Where.BODY) and method not in _SAFE:
        return "it may have been carried out: look before you send it again"
    pause = wait(facts)
    return f"the partner asks to wait {duration_text(pause)}" if pause else verdict.hint or "try again later"


def _hidden(found: Any, redact: Any) -> Any:
    if isinstance(found, Mapping):
        return {redact(name): _hidden(value, redact) for name, value in found.items()}
    if isinstance(found, list):
        return [_hidden(value, redact) for value in found]
    if isinstance(found, str):
        return redact(found)
    text = json.dumps(found)
    return found if redact(text) == text else redact(text)
