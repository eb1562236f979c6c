"""The canary: send one harmless real request with a set, and classify the partner's answer."""

import re
from datetime import timedelta
from email.message import Message
from typing import Final

from broker.model.clock import system_clock
from broker.model.generation import Application
from broker.model.redactor import Redactor
from broker.model.verdict import CanaryResult, Verdict
from broker.network import Deadline, retry_after
from broker.partners.profile import Probe
from broker.partners.request import recipe
from broker.partners.verdict import ProbeFacts, Where, classify, wait
from broker.typed import json_object
from broker.upstream.credentials import Credentials
from broker.upstream.exchange import Reply, asked

DEADLINE: Final = timedelta(seconds=20)
_READ: Final = 2000  # characters of the partner's message that are read
_MESSAGE: Final = 300  # characters of it that are shown, after secrets are hidden
_TITLE: Final = re.compile(r"<title>([^<]{0,300})</title>", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)
_DATED: Final = ("certificate has expired", "certificate is not yet valid")  # OpenSSL's words
_QUOTAS: Final = {"X-RateLimit-Remaining-1": "day", "X-RateLimit-Remaining-2": "burst"}


def ask(
    credentials: Credentials,
    request: Probe,
    *,
    application: Application | None = None,
    deadline: timedelta = DEADLINE,
) -> CanaryResult:
    """Send the canary, and return its result for rotation. `application` is the one that the client_id belongs to."""
    facts = probe(credentials, request, deadline=deadline)
    verdict = classify(facts, request.expect)
    detail = "" if verdict is Verdict.OK else detail_of(facts, credentials)
    return CanaryResult(verdict, detail, wait(facts), application)


def probe(credentials: Credentials, request: Probe, *, deadline: timedelta = DEADLINE) -> ProbeFacts:
    """Send `request` once, with the set, and return the facts; raise nothing for faults of the partner.

    The server is verified before any header is written. `deadline` is for all of it, with the second connection that is
    opened if the server closed the first without a reason.
    """
    method, path, query = request.method, request.path, request.query.items()
    made = recipe(credentials.base_url, credentials.authentication, method, path, query)
    answer = asked(credentials, made, Deadline(deadline.total_seconds()))
    return facts_of(answer) if isinstance(answer, Reply) else answer


def facts_of(reply: Reply) -> ProbeFacts:
    """Return the facts of a complete answer."""
    document, details = json_object(reply.body), []
    if used := sorted(word for name, word in _QUOTAS.items() if number_of(reply.headers, name) == 0):
        details.append(f"the {' and the '.join(used)} quota is used up")
    if document is None:
        details.append("the body is not the API's" if reply.body.strip() else "the body is empty")
    code = (document or {}).get("code", (document or {}).get("httpCode"))
    return ProbeFacts(
        Where.HTTP,
        status=reply.status,
        is_json=document is not None,
        code=str(code)[:10] if isinstance(code, str | int) else "",
        message=_message_of(reply, document)[:_READ],
        retry_after=_seconds(reply.headers),
        detail=", ".join(details),
    )


def _message_of(reply: Reply, document: dict[str, object] | None) -> str:
    if document is not None:
        parts = [document.get(key) for key in ("message", "httpMessage", "moreInformation")]
        return "; ".join(part for part in parts if isinstance(part, str))
    title = _TITLE.search(reply.body[:4096].decode("utf-8", errors="replace"))
    return title.group(1) if title else ""


def _shown(message: str, redactor: Redactor) -> str:
    plain = "".join(c if c.isprintable() else " " for c in redactor.redact(message))
    return redactor.redact(plain).strip()[:_MESSAGE]  # again: a space for a control character may complete a secret


def _seconds(headers: Message) -> int | None:
    retry = retry_after(headers.get("Retry-After", ""), system_clock())
    return number_of(headers, "X-RateLimit-Reset") if retry is None else retry


def number_of(headers: Message, name: str) -> int | None:
    """Return the number in a header, None if there is none."""
    found = headers.get(name, "").strip()
    return int(found) if _NUMBER.fullmatch(found) else None


def detail_of(facts: ProbeFacts, credentials: Credentials) -> str:
    """Return facts for people, without secrets."""
    if facts.verify_error:
        proxied = "; does the proxy intercept TLS? It must not" if credentials.proxy else ""
        asked = "; is this machine's clock right?" if facts.verify_error in _DATED else proxied
        return f"the server was not verified: {facts.verify_error}{asked}"
    if facts.where is not Where.HTTP:
        return facts.detail
    return ", ".join(
        filter(None, (f"HTTP {facts.status}", _shown(facts.message, credentials.redactor()), facts.detail))
    )
