"""Proposals: what arrived for an account, by mail or in the drop folder, and waits for a person.

A proposal changes nothing by itself. It closes no request and destroys no key: a person imports it, or dismisses it.
Everything in it comes from outside and is bounded. No link is stored, only the host that it leads to.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import ConflictError, UnknownNameError
from broker.model.account import Account
from broker.model.finding import Finding, has_errors
from broker.model.generation import SigningRequest
from broker.model.names import AccountName

LARGEST: Final = 32 * 1024  # characters of the material of one proposal: a leaf with its CAs has 10,000
LONGEST: Final = 200  # characters of a sender, a subject, or a line of what it holds
MOST_WAITING: Final = 12  # of one account
MOST_CLOSED: Final = 50  # remembered without their material, so that a mail that comes again is known


class Arrival(Enum):
    """The kinds of proposals, the most useful first: if there are too many, the last kinds go."""

    REPLY = "reply"  # certificates, for `cert import`
    LINK = "link"  # a link to what the partner made, which a person opens
    BOUNCE = "bounce"  # a mail of ours did not arrive
    UNREADABLE = "unreadable"  # an answer that only a person can read
    EXPIRY = "expiry"  # the partner says that a certificate of the account expires


class Outcome(Enum):
    """The end of a proposal."""

    IMPORTED = "imported"
    DISMISSED = "dismissed"


class Proposal(Struct, frozen=True):
    """One mail or file. `sender` and `subject` are what the mail says: nobody has verified them."""

    id: str  # of the mail or file, hexadecimal: the same for the same content
    kind: Arrival
    received: datetime
    source: str  # "mail", or the name of a file in the drop folder
    sender: str = ""
    subject: str = ""
    message_id: str = ""
    request: int = 0  # the signing request that it fits; 0 if it names the account only
    holds: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    material: str = ""  # PEM certificates and labelled client_ids, as `cert import` reads them
    download_by: datetime | None = None  # of a link: when it stops working, as far as anybody knows
    outcome: Outcome | None = None
    reason: str = ""

    def over(self, account: Account) -> bool:
        """Return whether nobody needs to look at it: it was closed, or what it is about has happened since."""
        current = account.current
        if self.kind is Arrival.EXPIRY and current and current.since > self.received:
            return True
        request = _request(account, self.request)
        return bool(self.outcome or (request and request.closed_at and request.closed_at > self.received))


class Bounce(Struct, frozen=True):
    """A report that a mail of ours did not arrive (RFC 3464). It counts only if we sent `message_id`."""

    message_id: str
    recipient: str
    status: str  # such as 5.1.1
    received: datetime


def reply_id(account: AccountName, proposal: Proposal) -> str:
    """Return the name of a proposal, as commands take it."""
    return f"{account}/{proposal.id}"


def waiting(proposals: Iterable[Proposal], account: Account) -> tuple[Proposal, ...]:
    """Return the proposals that wait for a person, in the order of their arrival."""
    return tuple(p for p in proposals if not p.over(account))


def next_step(account: Account, proposal: Proposal) -> tuple[str, str]:
    """Return what a person must do about `proposal`, and the command."""
    name, id_ = account.name, reply_id(account.name, proposal)
    dismiss = f"broker reply dismiss {id_} --reason TEXT"
    match proposal.kind:
        case Arrival.REPLY if has_errors(proposal.findings):
            return "a reply waits for a decision", f"broker reply show {id_}"
        case Arrival.REPLY:
            return "a reply waits to be imported", f"broker cert import {name} --reply {id_}"
        case Arrival.LINK:
            by = f" by {proposal.download_by:%F}" if proposal.download_by else ""
            return f"a reply has a link: download the certificate{by}", f"broker cert import {name} FILE"
        case Arrival.BOUNCE:
            return "a mail for a signing request did not arrive", f"broker csr submit {name} --to ADDRESS, or {dismiss}"
        case Arrival.EXPIRY:
            return "the partner says that a certificate expires", f"broker rotation status {name}, then {dismiss}"
        case Arrival.UNREADABLE:
            ways = f"broker cert import {name} FILE, broker csr refused {name} --reason TEXT, or {dismiss}"
            return "a reply cannot be read: read it in your mail program", ways


def proposed(proposals: Sequence[Proposal], new: Proposal) -> tuple[Proposal, ...]:
    """Return `proposals` with `new`, unless it is among them already. The oldest that are closed are forgotten.

    If too many wait, the newest of the least useful kind is left out: it is still in the mailbox, or in the folder.
    """
    if any(p.id == new.id for p in proposals):
        return tuple(proposals)
    closed = [p for p in proposals if p.outcome][-MOST_CLOSED:]
    open_ = sorted([*(p for p in proposals if not p.outcome), new], key=_usefulness)[:MOST_WAITING]
    return tuple(closed) + tuple(sorted(open_, key=lambda p: (p.received, p.id)))


def found(proposals: Iterable[Proposal], account: AccountName, id_: str) -> Proposal:
    """Return the proposal called `id_`; raise `UnknownNameError`."""
    for proposal in proposals:
        if proposal.id == id_:
            return proposal
    raise UnknownNameError(f"{account} has no reply {id_[:80]!r}", hint=f"broker reply list {account}")


def concluded(
    proposals: Sequence[Proposal], account: AccountName, id_: str, outcome: Outcome, reason: str = ""
) -> tuple[Proposal, ...]:
    """Return `proposals` with one of them closed, and without its material.

    Raise `UnknownNameError`, or `ConflictError` if it ended otherwise: an imported reply cannot be dismissed.
    """
    one = found(proposals, account, id_)
    if one.outcome and one.outcome is not outcome:
        message = f"reply {account}/{id_} was {one.outcome.value} already"
        raise ConflictError(message, hint=f"broker reply list {account}")
    if one.outcome:
        return tuple(proposals)
    after = replace(one, outcome=outcome, reason=reason, material="", findings=())
    return tuple(after if p.id == id_ else p for p in proposals)


def _usefulness(proposal: Proposal) -> tuple[int, bool]:
    return list(Arrival).index(proposal.kind), has_errors(proposal.findings)


def _request(account: Account, number: int) -> SigningRequest | None:
    return next((r for r in account.requests if r.number == number), None)
