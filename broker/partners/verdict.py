"""What a harmless real request told us about a set. Pure: the prober in `upstream` brings the facts.

A few answers can be read in two ways. They are read in the way whose mistake costs less:

- A 401 that does not say what it is about, and a 403 of the API itself, count as `LOGIN_REJECTED`. Partners lock
  accounts after a few wrong passwords, so a needless pause is cheaper than one more try.
- A connection that is closed without a word, after a handshake that asked for our certificate and before a byte of
  the answer, counts as `CERTIFICATE_REJECTED`: under TLS 1.3 the client has finished its handshake before the server
  judges the certificate, and a server that closes at once often loses its own alert. The prober has by then listened
  on a second connection that asked for nothing; where that one stays open, it says so, and this is `PARTNER_DOWN`.
- Closed or silent before or within the handshake is `PARTNER_DOWN`: a firewall or an empty load balancer does that.
- A success whose body is not the API's (a maintenance page) is `PARTNER_DOWN`, never `OK`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from types import MappingProxyType
from typing import Final

from broker.model.obstacle import LONGEST_PAUSE

__all__ = ["ProbeFacts", "Verdict", "Where", "classify", "wait"]


class Verdict(Enum):
    """What a canary's answer means for the set."""

    OK = "ok"
    HANDSHAKE = "handshake"
    CERTIFICATE_REJECTED = "certificate_rejected"
    LOGIN_REJECTED = "login_rejected"
    CLIENT_REJECTED = "client_rejected"
    WRONG_CA = "wrong_ca"
    QUOTA = "quota"
    PARTNER_DOWN = "partner_down"

    @property
    def message(self) -> str:
        """One line for people."""
        return _WORDS[self][0]

    @property
    def hint(self) -> str:
        """What a person can do; empty where there is nothing to do."""
        return _WORDS[self][1]


_WORDS: Final[Mapping[Verdict, tuple[str, str]]] = MappingProxyType(
    {
        Verdict.OK: ("the partner accepted certificate, login and client_id", ""),
        Verdict.HANDSHAKE: (
            "TLS could not be agreed on with the partner",
            "compare TLS versions with the partner's documentation; a proxy on the way can do this too",
        ),
        Verdict.CERTIFICATE_REJECTED: (
            "the partner's server refused the client certificate",
            "a new certificate may take hours to be known there; if it stays so, send the partner its fingerprint",
        ),
        Verdict.LOGIN_REJECTED: (
            "the partner refused login and password, or says that they may not be used",
            "nothing tries again by itself, since partners lock accounts: check the password with the partner first; "
            "then broker password set ACCOUNT",
        ),
        Verdict.CLIENT_REJECTED: (
            "the partner refused the application's client_id",
            "compare it with the partner's e-mail, and set it anew: broker app set ACCOUNT/APPLICATION",
        ),
        Verdict.WRONG_CA: (
            "the server could not be proven to be the partner's, so no secret was sent",
            "if the partner announced a new server CA, compare its fingerprint: "
            "broker trust set ACCOUNT FILE --accept-ca SHA256",
        ),
        Verdict.QUOTA: ("the partner's quota is used up", "wait; the quota is the partner's to raise"),
        Verdict.PARTNER_DOWN: ("the partner gave no answer that says anything about the set", ""),
    }
)


class Where(Enum):
    """How far a request came."""

    CONNECT = "connect"  # no TCP connection
    HANDSHAKE = "handshake"  # connected; TLS was not agreed on
    FIRST_READ = "first read"  # handshake done, request sent, not a byte of an answer
    BODY = "body"  # an answer began, and broke off or made no sense
    HTTP = "http"  # a whole answer


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """What happened, in words of ours: no exception of a library.

    `code` and `message` are the partner's words, bounded. They may repeat a secret: redact them before they are shown.
    """

    where: Where
    alert: str = ""  # the TLS alert that the server sent, in words of RFC 8446: "unknown ca"
    verify_error: str = ""  # why we did not trust the server
    closed: bool = False  # closed or reset without an alert
    stays_open: bool = False  # a second connection that asked for nothing was not closed
    timed_out: bool = False
    status: int | None = None
    is_json: bool = False  # the body is a JSON object, the only kind of answer that APIs here give
    code: str = field(default="", repr=False)  # of the body
    message: str = field(
        default="", repr=False
    )  # of the body: message, httpMessage, moreInformation, or the title of a page
    retry_after: int | None = None  # seconds
    detail: str = ""  # for people, beyond the fields above


_CERTIFICATE_ALERTS: Final = frozenset(
    {
        "access denied",
        "bad certificate",
        "certificate expired",
        "certificate required",
        "certificate revoked",
        "certificate unknown",
        "decrypt error",  # the signature made with our key did not verify
        "no certificate",
        "unknown ca",
        "unsupported certificate",
    }
)
# What nginx says with status 400 where others send an alert: its own 495 and 496.
_CERTIFICATE_PAGES: Final = ("ssl certificate error", "no required ssl certificate was sent", "client certificate")
_CERTIFICATE_STATUSES: Final = (495, 496)
_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY = 401, 403, 429


def classify(facts: ProbeFacts, expect: Collection[int] = (200,)) -> Verdict:
    """Return what `facts` say of the set; `expect` are the statuses that mean success."""
    if facts.verify_error:
        return Verdict.WRONG_CA
    if facts.where is Where.HTTP:
        return _answered(facts, expect)
    if facts.where in (Where.CONNECT, Where.BODY) or facts.timed_out:
        return Verdict.PARTNER_DOWN
    if facts.alert:
        return Verdict.CERTIFICATE_REJECTED if facts.alert in _CERTIFICATE_ALERTS else Verdict.HANDSHAKE
    if facts.where is Where.HANDSHAKE:
        return Verdict.PARTNER_DOWN if facts.closed else Verdict.HANDSHAKE
    return Verdict.CERTIFICATE_REJECTED if facts.closed and not facts.stays_open else Verdict.PARTNER_DOWN


def wait(facts: ProbeFacts) -> timedelta | None:
    """Return how long the partner wants to be left alone, a day at most; None where it does not say."""
    if not facts.retry_after or facts.status is None:
        return None
    return min(timedelta(seconds=facts.retry_after), LONGEST_PAUSE)


def _answered(facts: ProbeFacts, expect: Collection[int]) -> Verdict:
    status, said = facts.status or 0, " ".join(facts.message.lower().split())
    if status in expect:
        return Verdict.OK if facts.is_json else Verdict.PARTNER_DOWN
    if _about_certificate(facts, status, said):
        return Verdict.CERTIFICATE_REJECTED
    if status == _TOO_MANY:
        return Verdict.QUOTA
    if status in (_UNAUTHORIZED, _FORBIDDEN) and _about_client_id(said):
        return Verdict.CLIENT_REJECTED
    if status == _UNAUTHORIZED or (status == _FORBIDDEN and facts.is_json):
        return Verdict.LOGIN_REJECTED
    return Verdict.PARTNER_DOWN


def _about_certificate(facts: ProbeFacts, status: int, said: str) -> bool:
    codes = {str(code) for code in _CERTIFICATE_STATUSES}
    if status in _CERTIFICATE_STATUSES or facts.code in codes:
        return True
    return 400 <= status < 500 and any(words in said for words in _CERTIFICATE_PAGES)  # noqa: PLR2004  # 4xx


def _about_client_id(said: str) -> bool:
    named = "client id" in said or "client_id" in said or "clientid" in said
    return named and not any(word in said for word in ("login", "password", "basic", "user"))
