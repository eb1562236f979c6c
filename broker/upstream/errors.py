"""Describe errors of calls to the partner. No exception of ssl, sockets or requests travels past this package."""

from __future__ import annotations

import http.client
import os
import socket
import ssl

from broker.network import UNREADABLE, alert_of, behind, is_closed
from broker.partners.verdict import ProbeFacts, Where

__all__ = ["described", "facts_of"]


def facts_of(error: Exception, where: Where) -> ProbeFacts:
    """Return the facts of `error`, which ended a call at `where`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ProbeFacts(where, verify_error=error.verify_message or "the server's certificate was not accepted")
    if isinstance(error, TimeoutError):
        return ProbeFacts(where, timed_out=True, detail=f"no answer in time ({where.value})")
    if isinstance(error, http.client.IncompleteRead):
        return ProbeFacts(Where.BODY, closed=True, detail="the answer is incomplete")
    if is_closed(error):
        return ProbeFacts(
            where, closed=True, detail=f"the server closed the connection without a reason ({where.value})"
        )
    if alert := alert_of(error):
        return ProbeFacts(where, alert=alert, detail=f"the server sent the TLS alert '{alert}'")
    return ProbeFacts(Where.BODY if isinstance(error, http.client.HTTPException) else where, detail=_reason(error))


def described(error: Exception) -> str:
    """Return a message about `error`, or about the first error inside it that we know. It quotes nothing."""
    for found in behind(error):
        if isinstance(found, ssl.SSLError | OSError | http.client.HTTPException) and type(found) is not OSError:
            facts = facts_of(found, Where.CONNECT)
            return f"the server was not verified: {facts.verify_error}" if facts.verify_error else facts.detail
    return "the call to the partner failed"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'unknown reason').replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror):
        return "the partner's host name was not found"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, (http.client.HTTPException, *UNREADABLE)):
        return "the answer is not HTTP"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "the call failed"
