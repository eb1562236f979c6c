"""Classify what a harmless real request found out about a set. Pure: the canary in `upstream` brings the facts.

Some answers can be read in two ways. They are read in the way whose mistake costs less:

- A 401 that does not say what it is about, and a 403 of the API itself, count as `LOGIN_REJECTED`. Partners lock
  accounts after a few wrong passwords, so a needless pause is cheaper than another try.
- A connection that is closed without a reason, after a handshake that asked for our certificate and before the first
  byte of the answer, counts as `CERTIFICATE_REJECTED`: under TLS 1.3 the client has finished its handshake before the
  server checks the certificate, and a server that closes immediately often loses its own alert. The canary has then
  listened on a second connection that sent nothing. If that one stayed open, this is `PARTNER_DOWN`.
- Closed or silent before or within the handshake is `PARTNER_DOWN`: a firewall or an empty load balancer does that.
- A success whose body is not the API's (a maintenance page) is `PARTNER_DOWN`, never `OK`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from http import HTTPStatus
from typing import Final

from broker.model.todo import LONGEST_PAUSE
from broker.model.verdict import Verdict


class Where(Enum):
    """The step that a request reached."""

    CONNECT = "connect"  # no TCP connection
    HANDSHAKE = "handshake"  # connected; TLS was not agreed on
    FIRST_READ = "first read"  # handshake done, request sent, no byte of an answer
    BODY = "body"  # an answer began, and was incomplete or unreadable
    HTTP = "http"  # a complete answer


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """The facts of one request, without exceptions of libraries.

    `code` and `message` are text of the partner, bounded. They may repeat a secret: redact them before they are shown.
    """

    where: Where
    alert: str = ""  # the TLS alert of the server, in words of RFC 8446: "unknown ca"
    verify_error: str = ""  # why the server was not verified
    closed: bool = False  # closed or reset without an alert
    stays_open: bool = False  # a second connection that sent nothing was not closed
    timed_out: bool = False
    status: int | None = None
    is_json: bool = False  # the body is a JSON object, as every answer of these APIs is
    code: str = field(default="", repr=False)  # of the body
    message: str = field(default="", repr=False)  # of the body, or the title of a page
    retry_after: int | None = None  # seconds
    detail: str = ""  # for people, beyond the fields above


_CERTIFICATE_ALERTS: Final = re.compile(
    "access denied|bad certificate|certificate (expired|required|revoked|unknown)|no certificate|unknown ca|"
    "unsupported certificate|decrypt error"  # the last: the signature made with our key did not verify
)
# Texts of nginx with status 400, and its own statuses, where others send an alert
_CERTIFICATE_PAGES: Final = ("ssl certificate error", "no required ssl certificate was sent", "client certificate")
_CERTIFICATE_CODES: Final = frozenset({"495", "496"})


def classify(facts: ProbeFacts, expect: Collection[int] = (200,)) -> Verdict:
    """Return the verdict on the set; `expect` holds the statuses that mean success."""
    if facts.verify_error:
        return Verdict.WRONG_CA
    if facts.where is Where.HTTP:
        return _answered(facts, expect)
    if facts.where in (Where.CONNECT, Where.BODY) or facts.timed_out:
        return Verdict.PARTNER_DOWN
    if facts.alert:
        return Verdict.CERTIFICATE_REJECTED if _CERTIFICATE_ALERTS.fullmatch(facts.alert) else Verdict.HANDSHAKE
    if facts.where is Where.HANDSHAKE:
        return Verdict.PARTNER_DOWN if facts.closed else Verdict.HANDSHAKE
    return Verdict.CERTIFICATE_REJECTED if facts.closed and not facts.stays_open else Verdict.PARTNER_DOWN


def wait(facts: ProbeFacts) -> timedelta | None:
    """Return how long the partner asked us to wait, a day at most; None if it did not."""
    return min(timedelta(seconds=facts.retry_after), LONGEST_PAUSE) if facts.retry_after else None


def _answered(facts: ProbeFacts, expect: Collection[int]) -> Verdict:
    status, said = facts.status or 0, " ".join(facts.message.lower().split())
    if status in expect:
        return Verdict.OK if facts.is_json else Verdict.PARTNER_DOWN
    page = 400 <= status < 500 and any(words in said for words in _CERTIFICATE_PAGES)  # noqa: PLR2004  # 4xx
    if page or _CERTIFICATE_CODES & {str(status), facts.code}:
        return Verdict.CERTIFICATE_REJECTED
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Verdict.QUOTA
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and _about_client_id(said):
        return Verdict.CLIENT_REJECTED
    if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and facts.is_json):
        return Verdict.LOGIN_REJECTED
    return Verdict.PARTNER_DOWN


def _about_client_id(said: str) -> bool:
    named = "client id" in said or "client_id" in said or "clientid" in said
    return named and not any(word in said for word in ("login", "password", "basic", "user"))
