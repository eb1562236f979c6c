"""Signing requests: opened, sent, closed, answered."""

from __future__ import annotations

from dataclasses import replace

from broker.errors import ConflictError, RefusedError
from broker.model.account import Account
from broker.model.certificate import Certificate
from broker.model.changes.writing import dooming_unused, recorded, swapped, with_candidate, with_request_closed
from broker.model.generation import (
    Closed,
    Parts,
    SigningRequest,
    Submission,
)
from broker.model.history import Event
from broker.model.stamp import Stamp

__all__ = ["answered", "closed", "requested", "submitted"]


def requested(account: Account, request: SigningRequest, *, by: str) -> Account:
    """Open `request`; raise `ConflictError` while another waits. Nothing to do where its key was requested before."""
    if any(r.spki == request.spki for r in account.requests):
        return account
    if account.open_request:
        raise ConflictError(
            f"{account.name} has an open signing request, number {account.open_request.number}",
            hint=f"broker csr show {account.name}, or broker csr cancel {account.name}",
        )
    after = replace(account, requests=(*account.requests, request))
    return recorded(
        after,
        Stamp(request.drafted_at, by),
        Event.REQUEST_DRAFTED,
        request=request.number,
        key=request.key,
        spki=request.spki,
    )


def submitted(account: Account, number: int, submission: Submission, *, by: str) -> Account:
    """Note that the CSR of request `number` was sent; the same evidence a second time changes nothing."""
    request = account.request(number)
    if any(replace(s, at=submission.at) == submission for s in request.submissions):
        return account
    if request.closed:
        raise RefusedError(f"signing request {number} of {account.name} was {request.closed.value}")
    sent = replace(request, submissions=(*request.submissions, submission))
    after = replace(account, requests=swapped(account.requests, request, sent))
    return recorded(
        after,
        Stamp(submission.at, by),
        Event.REQUEST_SUBMITTED,
        request=number,
        via=submission.via,
        to=submission.to,
        reference=submission.reference,
        message_id=submission.message_id,
    )


def closed(account: Account, number: int, why: Closed, stamp: Stamp) -> Account:
    """Close request `number` and doom its key; nothing to do where it was closed for the same reason."""
    request = account.request(number)
    if request.closed is why:
        return account
    if request.closed:
        raise ConflictError(f"signing request {number} of {account.name} was {request.closed.value} meanwhile")
    return dooming_unused(account, with_request_closed(account, request, why, stamp))


def answered(account: Account, number: int, certificate: Certificate, stamp: Stamp) -> Account:
    """Close request `number` with the certificate that answers it, and add the candidate it makes.

    The candidate changes the certificate, laid over the current set; or all parts, with the newest secrets and CAs, if
    no set is current yet. Nothing to do if this certificate has answered it.
    """
    request = account.request(number)
    if request.closed is Closed.ANSWERED and any(g.parts.certificate == certificate.ref for g in account.generations):
        return account
    if request.closed:
        raise RefusedError(f"this answers signing request {number} of {account.name}, which was {request.closed.value}")
    if not account.secrets:
        raise RefusedError(f"{account.name} has no password yet", hint=f"broker password set {account.name}")
    if account.trust is None or account.issuing is None:
        raise RefusedError(
            f"{account.name} has no accepted CA yet", hint="--accept-ca FINGERPRINT, once you have compared it"
        )
    parts = Parts(request.key, certificate.ref, account.issuing)
    if account.current is None:
        parts = replace(parts, secrets=account.secrets, trust=account.trust)
    kept = (*(c for c in account.certificates if c.ref != certificate.ref), certificate)
    after = with_request_closed(replace(account, certificates=kept), request, Closed.ANSWERED, stamp)
    return with_candidate(after, parts, stamp)
