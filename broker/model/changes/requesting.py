"""Changes of signing requests."""

from broker.copies import replace
from broker.errors import ConflictError, RefusedError
from broker.model.account import Account
from broker.model.certificate import Certificate
from broker.model.chain import Fact
from broker.model.changes.writing import dooming_unused, recorded, swapped, with_candidate, with_request_closed
from broker.model.clock import Stamp
from broker.model.generation import Closed, KeyRef, Parts, SigningRequest, Submission, key_ref
from broker.model.history import Event


def requested(account: Account, request: SigningRequest, *, by: str) -> Account:
    """Open `request`, unless its key was requested before; raise `ConflictError` if another is open."""
    if any(r.spki == request.spki for r in account.requests):
        return account
    return opened(account, request, by=by)


def reusable_request(account: Account) -> SigningRequest:
    """Return the request whose key the current generation has; raise `RefusedError` if the key was ever outside."""
    current, otherwise = account.current, f"broker csr new {account.name} makes a new key"
    if current is None:
        raise RefusedError(f"{account.name} has no current generation whose key could be used again", hint=otherwise)
    request = next(r for r in account.requests if r.key == current.parts.key)
    if request.imported or request.compromised:
        why = "it was made outside" if request.imported else "a person reported that others know it"
        raise RefusedError(f"the key of {account.name} cannot be used again: {why}", hint=otherwise)
    return request


def requested_with_same_key(account: Account, request: SigningRequest, *, by: str) -> Account:
    """Open `request`, which has the key of the current generation; raise `ConflictError` if another is open."""
    before = reusable_request(account)
    if before.key != request.key:
        raise ConflictError(f"another key of {account.name} became current meanwhile", hint="run this command again")
    return opened(account, request, by=by, reuses=before.number)


def without_key(account: Account, slot: int, key: KeyRef) -> Account:
    """Doom `key`, which was made for request `slot`, if that request was opened with another key meanwhile."""
    if all(r.number != slot or r.key == key for r in account.requests) or key in account.doomed_keys:
        return account
    return replace(account, doomed_keys=account.doomed_keys | {key})


def opened(account: Account, request: SigningRequest, *, by: str, **facts: Fact) -> Account:
    """Add `request`; raise `ConflictError` if another is open. The keys in slots that it passes over are doomed."""
    if account.open_request:
        raise ConflictError(
            f"{account.name} has an open signing request, number {account.open_request.number}",
            hint=f"broker csr show {account.name}, or broker csr cancel {account.name}",
        )
    orphans = {key_ref(slot) for slot in range(account.next_request, request.number + 1)} - {request.key}
    after = replace(account, requests=(*account.requests, request), doomed_keys=account.doomed_keys | orphans)
    named: dict[str, Fact] = {"request": request.number, "key": request.key, "spki": request.spki}
    return recorded(after, Stamp(request.drafted_at, by), Event.REQUEST_DRAFTED, **named, **facts)


def submitted(account: Account, number: int, submission: Submission, *, by: str) -> Account:
    """Record that the CSR of request `number` was sent; repeating it changes nothing."""
    request = account.request(number)
    if any(replace(s, at=submission.at) == submission for s in request.submissions):
        return account
    if request.closed:
        raise RefusedError(f"signing request {number} of {account.name} was {request.closed.value}")
    sent = replace(request, submissions=(*request.submissions, submission))
    after = replace(account, requests=swapped(account.requests, request, sent))
    facts = {name: getattr(submission, name) for name in ("via", "to", "reference", "message_id")}
    return recorded(after, Stamp(submission.at, by), Event.REQUEST_SUBMITTED, request=number, **facts)


def closed(account: Account, number: int, why: Closed, stamp: Stamp, because: str = "") -> Account:
    """Close request `number` and doom its key, unless it was closed in the same way."""
    request = account.request(number)
    if request.closed is why:
        return account
    if request.closed:
        raise ConflictError(f"signing request {number} of {account.name} was {request.closed.value} meanwhile")
    return dooming_unused(account, with_request_closed(account, request, why, stamp, because))


def finding_accepted(account: Account, certificate: Certificate, finding: str, reason: str, stamp: Stamp) -> Account:
    """Record that a person takes `certificate` despite a finding about it: for this certificate and finding only."""
    facts: dict[str, Fact] = {"certificate": certificate.ref, "finding": finding, "reason": reason}
    return recorded(account, stamp, Event.FINDING_ACCEPTED, **facts)


def answered(account: Account, number: int, certificate: Certificate, stamp: Stamp) -> Account:
    """Close request `number` with the certificate that answers it, and add a candidate with it.

    The candidate changes the certificate only; or all parts, with the newest secrets and CAs, if no set is current yet.
    Nothing to do if this certificate has answered it.
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
            f"{account.name} has no accepted CA yet",
            hint="compare its fingerprint with the partner, then: --accept-ca FINGERPRINT",
        )
    parts = Parts(request.key, certificate.ref, account.issuing)
    if account.current is None:
        parts = replace(parts, secrets=account.secrets, trust=account.trust)
    kept = (*(c for c in account.certificates if c.ref != certificate.ref), certificate)
    after = with_request_closed(replace(account, certificates=kept), request, Closed.ANSWERED, stamp)
    return with_candidate(after, parts, stamp)
