"""What goes wrong on the way to a partner, in our words. No exception of ssl, sockets or requests travels past here."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from broker.partners.verdict import ProbeFacts, Where

__all__ = ["described", "facts_of"]

_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?([A-Z_]+)")
_CLOSED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)
_CLOSED_REASONS: Final = ("UNEXPECTED_EOF_WHILE_READING",)
_DEPTH: Final = 8


def facts_of(error: Exception, where: Where, tls: str = "") -> ProbeFacts:
    """Return what `error`, which broke off a call at `where`, says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ProbeFacts(where, tls, verify_error=error.verify_message or "the server's certificate was not accepted")
    if isinstance(error, TimeoutError):
        return ProbeFacts(where, tls, timed_out=True, detail=f"no answer in time ({where.value})")
    if isinstance(error, http.client.IncompleteRead):
        return ProbeFacts(Where.BODY, tls, closed=True, detail="the answer broke off")
    if isinstance(error, _CLOSED) or (isinstance(error, ssl.SSLError) and error.reason in _CLOSED_REASONS):
        return ProbeFacts(where, tls, closed=True, detail=f"the connection was closed without a word ({where.value})")
    if isinstance(error, ssl.SSLError):
        return _tls_facts(error, where, tls)
    came = Where.BODY if isinstance(error, http.client.HTTPException) else where
    return ProbeFacts(came, tls, detail=_reason(error))


def described(error: Exception) -> str:
    """Return a sentence about `error`, or about the first thing behind it that we can name. It quotes nothing."""
    for found in _behind(error, _DEPTH):
        if isinstance(found, ssl.SSLError | OSError | http.client.HTTPException) and type(found) is not OSError:
            facts = facts_of(found, Where.CONNECT)
            if facts.verify_error:
                return f"the server could not be proven to be the partner's: {facts.verify_error}"
            if facts.alert:
                return f"the partner's server ended TLS with the alert '{facts.alert}'"
            return facts.detail
    return "the call to the partner failed"


def _tls_facts(error: ssl.SSLError, where: Where, tls: str) -> ProbeFacts:
    reason = error.reason or ""
    match = _ALERT.fullmatch(reason)
    if match is None:
        words = reason.replace("_", " ").lower()
        return ProbeFacts(where, tls, detail=f"TLS failed: {words}" if words else "TLS failed")
    alert = match.group(1).replace("_", " ").lower()
    return ProbeFacts(where, tls, alert=alert, detail=f"the server sent the TLS alert '{alert}'")


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the partner's host name was not found"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, http.client.HTTPException | ValueError):
        return "the answer is not HTTP"
    return error.strerror if isinstance(error, OSError) and isinstance(error.strerror, str) else "the call failed"


def _behind(error: object, depth: int) -> Iterator[Exception]:
    """Yield what libraries wrapped into `error`, the innermost first; requests and urllib3 hide it in their args."""
    if not isinstance(error, Exception) or not depth:
        return
    for inner in (getattr(error, "reason", None), *error.args, error.__cause__):
        yield from _behind(inner, depth - 1)
    yield error
