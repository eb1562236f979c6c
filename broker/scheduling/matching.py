"""Find the account and the request that a mail or a file is about, and make a proposal of it.

A key decides first, then the Message-ID of a mail of ours, then the account's login, subject or serial number in the
text. Nothing about the sender decides: it is not verified.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.model.account import Account
from broker.model.certificate import CertificateRef
from broker.model.finding import Finding, worst_first
from broker.model.fingerprint import format_fingerprint
from broker.model.generation import SigningRequest
from broker.model.proposal import LONGEST, Arrival, Bounce, Proposal
from broker.pki import chain
from broker.pki.certificate_fields import fingerprint_of
from broker.pki.certificates import describe
from broker.pki.names import shown
from broker.scheduling.incoming import Incoming

_MOST_LINES: Final = 8
_MOST_FINDINGS: Final = 5
_LONGEST_MESSAGE: Final = 600
_SHORTEST_LOGIN: Final = 5  # characters: a shorter one is a word
_SHORTEST_SERIAL: Final = 14  # hexadecimal digits: a CA numbers from 1, or at random


class Match(Struct, frozen=True):
    """An account that something is about. `request` is 0 if it names none."""

    account: Account
    request: int
    by_key: bool = False
    known: bool = False  # the account has its certificates already
    named: bool = False  # only by its text


def matches(arrived: Incoming, accounts: Iterable[Account]) -> list[Match]:
    """Return each account that `arrived` is about, by the strongest sign; none for a mail of our own."""
    seen = [account for account in accounts if not account.removed]
    if any(arrived.message_id in _sent(r) for a in seen for r in a.requests):
        return []
    for sign in (_by_key, _by_answer, _by_text):
        if found := [match for account in seen if (match := sign(arrived, account))]:
            return found
    return []


def bounced(bounce: Bounce, accounts: Iterable[Account]) -> Iterator[Match]:
    """Yield the request whose mail did not arrive."""
    for account in accounts:
        for request in account.requests:
            if bounce.message_id in _sent(request):
                yield Match(account, request.number)


def proposal(arrived: Incoming, match: Match, judged: Iterable[Finding], within: timedelta) -> Proposal:
    """Return what `arrived` proposes. `judged` are the findings of importing it; a link is good `within` a time."""
    kind, material = _kind(arrived, match), arrived.material
    findings = [*judged, *arrived.findings]
    if kind is Arrival.REPLY and not material:
        kind = Arrival.UNREADABLE
        findings.append(Finding.warning("reply.too-large", "its certificates are too many to keep here"))
    end = arrived.link_end or arrived.received + within
    return replace(
        _proposed(arrived, kind, match, tuple(_holds(arrived))[:_MOST_LINES]),
        findings=tuple(map(_short, worst_first(findings)))[:_MOST_FINDINGS],
        material=material if kind is Arrival.REPLY else "",
        download_by=end if kind is Arrival.LINK else None,
    )


def undelivered(arrived: Incoming, bounce: Bounce, match: Match) -> Proposal:
    """Return the task that a mail of ours did not arrive."""
    status = f" ({bounce.status})" if bounce.status else ""
    line = f"the mail server could not deliver to {bounce.recipient}{status}"
    return _proposed(arrived, Arrival.BOUNCE, match, (line,))


def _proposed(arrived: Incoming, kind: Arrival, match: Match, holds: tuple[str, ...]) -> Proposal:
    of = (arrived.source, arrived.sender, arrived.subject, arrived.message_id)
    return Proposal(arrived.id, kind, arrived.received, *of, match.request, holds)


def differs(new: Proposal, others: Iterable[Proposal], account: Account) -> Iterator[Finding]:
    """Yield a warning if another reply to the same request waits, with another content."""
    for other in others:
        if (other.kind, other.request) == (Arrival.REPLY, new.request) and not other.over(account):
            message = f"another reply to signing request {new.request} waits, and differs: {account.name}/{other.id}"
            yield Finding.warning("reply.differs", message, "ask the partner which of them is right")
            return


def _by_key(arrived: Incoming, account: Account) -> Match | None:
    fitting = [r.number for r in _newest(account) if r.spki in arrived.spkis]
    if not fitting or arrived.parts is None:
        return None
    leaves, stored = chain.leaves(arrived.parts.certificates), {c.ref for c in account.certificates}
    known = all(CertificateRef(fingerprint_of(leaf)) in stored for leaf in leaves)
    return Match(account, fitting[0], by_key=True, known=known)


def _by_answer(arrived: Incoming, account: Account) -> Match | None:
    fitting = [r.number for r in _newest(account) if _sent(r) & arrived.answers]
    return Match(account, fitting[0]) if fitting else None


def _by_text(arrived: Incoming, account: Account) -> Match | None:
    """A text is about an account if it waits for the partner, or if the text is about something that expires."""
    if not (account.open_request or arrived.tells_expiry) or not _names(arrived, account):
        return None
    return Match(account, account.open_request.number if account.open_request else 0, named=True)


def _names(arrived: Incoming, account: Account) -> bool:
    serials = {c.serial.lstrip("0") for c in account.certificates if len(c.serial) >= _SHORTEST_SERIAL}
    words = [account.login] if len(account.login) >= _SHORTEST_LOGIN else []
    words.append(str(account.subject))
    return bool(serials & arrived.serials) or any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", arrived.text, re.IGNORECASE) for word in words
    )


def _newest(account: Account) -> list[SigningRequest]:
    """Return the requests, the open one first, then the newest."""
    return sorted(account.requests, key=lambda r: (r.closed is None, r.number), reverse=True)


def _sent(request: SigningRequest) -> frozenset[str]:
    """Return the Message-IDs of the mails that submitted a request."""
    return frozenset(s.message_id for s in request.submissions if s.message_id)


def _kind(arrived: Incoming, match: Match) -> Arrival:
    if match.known and arrived.tells_expiry:
        return Arrival.EXPIRY
    if arrived.parts and arrived.parts.certificates:
        return Arrival.REPLY
    if match.named and arrived.tells_expiry and not (match.request and arrived.hosts):
        return Arrival.EXPIRY
    return Arrival.LINK if arrived.hosts else Arrival.UNREADABLE


def _holds(arrived: Incoming) -> Iterator[str]:
    """Yield a line for each thing in it. A link cannot be clicked, and only its host is named."""
    certificates = arrived.parts.certificates if arrived.parts else ()
    leaves = chain.leaves(certificates)
    for found in map(describe, leaves):
        yield _line(f"certificate of {found.subject}, {found.not_before:%F} to {found.not_after:%F}")
    for found in map(describe, (c for c in certificates if c not in leaves)):
        yield _line(f"CA {found.subject}, SHA-256 {format_fingerprint(found.fingerprint)}")
    for client_id in arrived.parts.client_ids if arrived.parts else ():
        yield _line(f"client_id {client_id}")
    for host in arrived.hosts:
        yield _line(f"link to hxxps://{shown(host.replace('.', '[.]'))[1:-1]}/…, which was not opened")


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[: LONGEST + 40]


def _short(finding: Finding) -> Finding:
    return Finding(finding.code, finding.severity, finding.message[:_LONGEST_MESSAGE], finding.hint[:_LONGEST_MESSAGE])
