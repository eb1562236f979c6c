"""`broker csr submit`: bring a signing request to the partner's people, or record that a person did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click
from msgspec import Struct

from broker.addresses import sendable
from broker.cli.options import (
    account_argument,
    confirm,
    moment,
    output_file_option,
    require_free_output,
    write_output,
    yes_option,
)
from broker.cli.output import note, wrote_json
from broker.cli.start import Start
from broker.errors import InputError, RefusedError
from broker.model.account import Account
from broker.model.channel import Channel
from broker.model.generation import SigningRequest, Submission
from broker.model.names import AccountName
from broker.model.role import Role
from broker.people.eml import csr_mail, draft

if TYPE_CHECKING:
    from broker.compose.graph import Broker


class _Case(Struct, frozen=True):
    """What is submitted, and how."""

    broker: Broker
    account: Account
    request: SigningRequest
    channel: Channel
    to: Sequence[str]
    reference: str
    out: str
    yes: bool

    def record(self, submission: Submission) -> SigningRequest:
        return self.broker.rotation.submit(self.account.name, self.request.number, submission)


@account_argument
@click.option(
    "--via",
    type=click.Choice([channel.value for channel in Channel]),
    help="The way to the partner.  [default: the account's, else the profile's]",
)
@output_file_option("--out", "File for the mail draft.  [default: ACCOUNT-N.eml]")
@click.option("--to", multiple=True, metavar="MAIL", help="Recipient in place of the account's contacts (repeatable).")
@click.option("--sent-at", default="", metavar="TIME", help="Record that a person sent it at this time (UTC).")
@click.option("--reference", default="", help="The partner's ticket number, or another reference.")
@yes_option
def submit(
    start: Start,
    account: AccountName,
    via: str | None,
    out: str,
    to: Sequence[str],
    sent_at: str,
    reference: str,
    yes: bool,
) -> None:
    """Submit the open signing request, and record it as sent. The lead time counts from here.

    eml writes the mail as a draft, which you send. smtp sends it. manual and portal say what to do, ask whether it is
    done (--yes: it is), and record that. vault-pki asks the CA in Vault that broker.toml names. With --sent-at, only
    record that a person sent it.
    """
    broker = start.broker
    found = broker.account(account, Role.ROTATOR)
    if found.open_request is None:
        broker.settle(account)  # a run that was killed may have had it answered
        raise RefusedError(f"{account} has no open signing request", hint=f"broker csr new {account} makes one")
    for address in to:
        sendable(address)
    if not reference.isprintable():
        raise InputError("--reference holds a control character")
    if sent_at and out:
        raise InputError("--out and --sent-at cannot be combined: a mail that was sent needs no draft")
    require_free_output(out, "the mail")
    usual = Channel.MANUAL if sent_at else broker.submitting.channel(found)
    channel = Channel(via) if via else usual
    if out and channel is not Channel.EML:
        raise InputError(f"--out is for --via eml, and this is {channel.value}", hint="leave --out out")
    case = _Case(broker, found, found.open_request, channel, to, reference, out, yes)
    wrote_json(_recorded(case, sent_at) if sent_at else _WAYS[channel](case))


def _recorded(case: _Case, sent_at: str) -> SigningRequest:
    if case.channel not in (Channel.MANUAL, Channel.PORTAL):
        message = f"--sent-at is for what a person sent, not for {case.channel.value}"
        raise InputError(message, hint="--via manual, or --via portal")
    at = _sent_at(sent_at, case.request.drafted_at, case.broker.true_clock())
    submitted = case.record(Submission(at, case.channel.value, ", ".join(case.to), case.reference))
    note(f"recorded: request {submitted.number} of {case.account.name} was sent at {at:%F %TZ}")
    return submitted


def _by_draft(case: _Case) -> SigningRequest:
    now, account = case.broker.true_clock(), case.account
    profile = case.broker.profile(account.profile, Role.ROTATOR)
    mail = csr_mail(account, case.request, profile, case.to, now)
    content = draft(mail, profile.submission.text(account.language))  # raises before anything is recorded
    submitted = case.record(Submission(now, Channel.EML.value, ", ".join(mail.to), case.reference, mail.message_id))
    file = case.out or f"{account.name}-{case.request.number}.eml"
    write_output(file, content)  # last: if the request was closed meanwhile, no mail is written
    note(f"mail draft {file}: open it in your mail program and send it" if file != "-" else "send this mail")
    return submitted


def _by_smtp(case: _Case) -> SigningRequest:
    sent = case.broker.submitting.by_mail(case.account, case.request, case.to)
    number, to = case.request.number, sent.submission.to
    was = "was sent before" if sent.before else "is sent"
    again = "; --to ADDRESS sends it to somebody else" if sent.before else ""
    name = case.account.name
    note(f"request {number} of {name} {was}, to {to}, {sent.submission.at:%F %TZ}{again}")
    if sent.refused:
        refused = ", ".join(sent.refused)
        note(f"warning: the mail server refused {refused}; broker account set {name} --contact ADDRESS replaces it")
    return case.broker.account(name, Role.ROTATOR).request(number)


def _by_person(case: _Case) -> SigningRequest:
    account, number = case.account, case.request.number
    rules = case.broker.profile(account.profile, Role.ROTATOR).submission
    portal = rules.url if case.channel is Channel.PORTAL else ""
    if case.channel is Channel.PORTAL and not portal:
        message = f"the profile {account.profile} has no portal"
        raise InputError(message, hint="--via manual, or set url under [submission] in the profile")
    to = portal or ", ".join(case.to or account.contacts.partner or ((rules.to,) if rules.to else ()))
    note(f"broker csr new {account.name} --out {account.name}-{number}.csr writes the CSR; send it to {to or '…'}")
    for step in rules.checklist:
        note(f"  [ ] {step}")
    confirm(f"Was signing request {number} of {account.name} sent?", yes=case.yes)
    submitted = case.record(Submission(case.broker.true_clock(), case.channel.value, to, case.reference))
    note(f"recorded: request {number} of {account.name} is sent")
    return submitted


def _by_pki(case: _Case) -> SigningRequest:
    name, number = case.account.name, case.request.number
    case.broker.submitting.by_pki(case.account, case.request)
    note(f"request {number} of {name} is signed; next: broker rotation promote {name}")
    return case.broker.account(name, Role.ROTATOR).request(number)


_WAYS: Final[Mapping[Channel, Callable[[_Case], SigningRequest]]] = {
    Channel.EML: _by_draft,
    Channel.SMTP: _by_smtp,
    Channel.MANUAL: _by_person,
    Channel.PORTAL: _by_person,
    Channel.VAULT_PKI: _by_pki,
}


def _sent_at(text: str, drafted_at: datetime, now: datetime) -> datetime:
    """Return the time in `text`, but not before the time of drafting on that day; raise `InputError` for the future."""
    at = moment(text)
    if at == drafted_at.replace(hour=0, minute=0, second=0, microsecond=0):
        return drafted_at
    if at > now:
        raise InputError(f"--sent-at {text} is in the future", hint="give it in UTC, and check the clock")
    return at
