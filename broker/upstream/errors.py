"""What goes wrong on the way to a partner, in our words. No exception of ssl, sockets or requests travels past here."""

from __future__ import annotations

import http.client
import os
import socket
import ssl

from broker.network import UNREADABLE, alert_of, behind, is_closed
from broker.partners.verdict import ProbeFacts, Where

__all__ = ["described", "facts_of"]


def facts_of(error: Exception, where: Where, tls: str = "") -> ProbeFacts:
    """Return what `error`, which broke off a call at `where`, says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ProbeFacts(where, tls, verify_error=error.verify_message or "the server's certificate was not accepted")
    if isinstance(error, TimeoutError):
        return ProbeFacts(where, tls, timed_out=True, detail=f"no answer in time ({where.value})")
    if isinstance(error, http.client.IncompleteRead):
        return ProbeFacts(Where.BODY, tls, closed=True, detail="the answer broke off")
    if is_closed(error):
        return ProbeFacts(where, tls, closed=True, detail=f"the connection was closed without a word ({where.value})")
    if isinstance(error, ssl.SSLError):
        return _tls_facts(error, where, tls)
    came = Where.BODY if isinstance(error, http.client.HTTPException) else where
    return ProbeFacts(came, tls, detail=_reason(error))


def described(error: Exception) -> str:
    """Return a message about `error`, or about the first thing behind it that we can name. It quotes nothing."""
    for found in behind(error):
        if isinstance(found, ssl.SSLError | OSError | http.client.HTTPException) and type(found) is not OSError:
            facts = facts_of(found, Where.CONNECT)
            if facts.verify_error:
                return f"the server could not be proven to be the partner's: {facts.verify_error}"
            if facts.alert:
                return f"the partner's server ended TLS with the alert '{facts.alert}'"
            return facts.detail
    return "the call to the partner failed"


def _tls_facts(error: ssl.SSLError, where: Where, tls: str) -> ProbeFacts:
    alert = alert_of(error)
    if not alert:
        words = (error.reason or "").replace("_", " ").lower()
        return ProbeFacts(where, tls, detail=f"TLS failed: {words}" if words else "TLS failed")
    return ProbeFacts(where, tls, alert=alert, detail=f"the server sent the TLS alert '{alert}'")


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the partner's host name was not found"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, (http.client.HTTPException, *UNREADABLE)):
        return "the answer is not HTTP"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "the call failed"
