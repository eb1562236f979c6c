"""Signing requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from broker.cli.exits import REFUSED
from broker.cli.guard import require_consent, yes_option
from broker.cli.options import account_argument, moment, read_input, writable, write_output
from broker.cli.output import clean, note, note_done, output_option, show_findings, show_json
from broker.errors import InputError, RefusedError
from broker.model.names import AccountName, mail_address

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.model.account import Account
    from broker.model.finding import Finding
    from broker.model.generation import SigningRequest

__all__ = ["command"]


@click.group("csr", epilog="Example: broker csr new acme --out acme.csr")
def command() -> None:
    """Signing requests: drafted here, signed by the partner's people."""


@command.command("new", epilog="Example: broker csr new acme --out acme.csr")
@account_argument
@click.option(
    "--out", default="-", metavar="PATH|-", callback=writable, help="Where the CSR goes.  [default: standard output]"
)
@click.option(
    "--supersede",
    is_flag=True,
    help="Close the open request first, and make a new key: each time.",
)
@yes_option
@output_option
@click.pass_obj
def new(start: Start, account: AccountName, out: str, supersede: bool, yes: bool, output: str) -> None:
    """Print the account's open signing request, making key and CSR if it has none.

    The private key is in Vault before the CSR is shown, and never leaves it by this command.
    """
    from broker.model.generation import Closed
    from broker.vault.policies import Role

    broker = start.broker
    found = broker.account(account, Role.ROTATOR)
    if supersede and found.open_request:
        require_consent(found, found.open_request, yes=yes)
        broker.rotation.close_request(account, Closed.SUPERSEDED, found.open_request.number)
    request = broker.rotation.draft(account)
    findings = _lint(start, broker.account(account, Role.ROTATOR), request.csr)
    if output == "table" or out != "-":
        write_output(out, request.csr.encode())
    if output == "json":
        show_json(_facts(request) | {"findings": findings})
        return
    note(f"signing request {request.number} of {account}, SPKI {request.spki[:16]}…")
    show_findings(findings)
    note(f"next: broker csr submit {account}")


@command.command("show", epilog="Example: broker csr show acme --number 2")
@account_argument
@click.option("--number", type=click.IntRange(1), help="Which; else the open one.")
@output_option
@click.pass_obj
def show(start: Start, account: AccountName, number: int | None, output: str) -> None:
    """Print a signing request: the open one, or an older one's history."""
    found = start.broker.account(account)
    request = found.request(number) if number else found.open_request
    if request is None:
        raise RefusedError(f"{account} has no open signing request", hint=f"broker csr new {account} makes one")
    if output == "json":
        show_json(_facts(request))
        return
    state = request.closed.value if request.closed else "open"
    note(f"signing request {request.number} of {account}, {state}, drafted {request.drafted_at:%F %TZ}")
    for sent in request.submissions:
        note(f"  sent {sent.at:%F %TZ} via {sent.via}" + (f", reference {sent.reference}" if sent.reference else ""))
    if request.csr:
        click.echo(request.csr, nl=False)


@command.command("lint", epilog="Example: broker csr lint request.pem --login MZP1234567")
@click.argument("file", metavar="FILE|-")
@click.option("--profile", default="stellantis", show_default=True, help="Whose rules.")
@click.option("--login", default="", help="The login that the common name must be.")
@output_option
@click.pass_obj
def lint(start: Start, file: str, profile: str, login: str, output: str) -> int:
    """Judge a CSR made by hand: field, value and hint of all that the partner would reject. Needs no vault."""
    from broker.model.finding import has_errors
    from broker.partners import catalogue
    from broker.pki.csr import parse
    from broker.pki.lint import lint_csr
    from broker.vault.policies import Role

    rules = catalogue.builtin(profile) if profile in catalogue.names() else start.broker.profile(profile, Role.OPERATOR)
    parsed = parse(read_input(file))
    findings = lint_csr(parsed, rules.subject, rules.key, login)
    bad = has_errors(findings)
    if output == "json":
        show_json({"subject": str(parsed.name), "success": not bad, "findings": findings})
    else:
        click.echo(clean(parsed.name))
        show_findings(findings, err=False)
        click.echo("refused" if bad else "good" if not findings else "good, with remarks")
    return REFUSED if bad else 0


@command.command("submit", epilog="Example: broker csr submit acme --out acme.eml")
@account_argument
@click.option(
    "--out",
    default="",
    metavar="PATH|-",
    callback=writable,
    help="Where the mail draft goes.  [default: ACCOUNT-N.eml]",
)
@click.option("--to", multiple=True, metavar="MAIL", help="To whom, if not to the account's contacts; repeat.")
@click.option("--sent-at", default="", metavar="TIME", help="It was sent by hand, at this time (UTC).")
@click.option("--reference", default="", help="The partner's ticket, or what you find the mail by.")
@output_option
@click.pass_obj
def submit(
    start: Start, account: AccountName, out: str, to: Sequence[str], sent_at: str, reference: str, output: str
) -> None:
    """Write the mail that asks the partner to sign, with the CSR attached, and start the lead-time clock.

    With --sent-at, only note that it was sent by hand.
    """
    from broker.vault.policies import Role

    broker = start.broker
    found = broker.account(account, Role.ROTATOR)
    request = found.open_request
    if request is None:
        raise RefusedError(f"{account} has no open signing request", hint=f"broker csr new {account} makes one")
    for address in to:
        mail_address(address)
    if not reference.isprintable():
        raise InputError("--reference holds a control character")
    if sent_at and out:
        raise InputError("--out is for a mail that is still to be sent, and --sent-at says that it was")
    if out == "-" and output == "json":
        raise InputError("standard output takes the mail or JSON, one of them", hint="--out FILE for the mail")
    if sent_at:
        submitted = _by_hand(start, request, found.name, to, sent_at, reference)
    else:
        submitted = _by_mail(start, found, request, to, out or f"{account}-{request.number}.eml", reference)
    if output == "json":
        show_json(_facts(submitted))


@command.command("cancel", epilog="Example: broker csr cancel acme --rejected")
@account_argument
@click.option("--rejected", is_flag=True, help="The partner said no.")
@yes_option
@click.pass_obj
def cancel(start: Start, account: AccountName, rejected: bool, yes: bool) -> None:
    """Close the open signing request. Its key is destroyed; a late reply to it will be named and refused."""
    from broker.model.generation import Closed
    from broker.vault.policies import Role

    broker = start.broker
    why = Closed.REJECTED if rejected else Closed.CANCELLED
    found = broker.account(account, Role.ROTATOR)
    request = found.open_request or next((r for r in found.requests[-1:] if r.closed is why), None)
    if request is None:
        raise RefusedError(f"{account} has no open signing request")
    if not request.closed:
        require_consent(found, request, yes=yes)
    broker.rotation.close_request(account, why, request.number)
    done = f"signing request {request.number} of {account} is {why.value}"
    note_done(done, changed=not request.closed)


def _by_hand(
    start: Start, request: SigningRequest, account: AccountName, to: Sequence[str], sent_at: str, reference: str
) -> SigningRequest:
    from broker.model.generation import Submission

    at = _sent_at(sent_at, request.drafted_at, start.broker.true_clock())
    submitted = start.broker.rotation.submit(account, request.number, Submission(at, "hand", ", ".join(to), reference))
    note(f"noted: request {submitted.number} of {account} was sent at {at:%F %TZ}")
    return submitted


def _sent_at(text: str, drafted_at: datetime, now: datetime) -> datetime:
    """Return the time that `text` says, for the day of drafting that of drafting; raise `InputError` for the future."""
    at = moment(text)
    if at == drafted_at.replace(hour=0, minute=0, second=0, microsecond=0):
        return drafted_at
    if at > now:
        raise InputError(f"--sent-at {text} is in the future", hint="it takes UTC; is the clock right?")
    return at


def _by_mail(
    start: Start, account: Account, request: SigningRequest, to: Sequence[str], out: str, reference: str
) -> SigningRequest:
    from broker.model.generation import Submission
    from broker.people.eml import csr_mail, draft
    from broker.vault.policies import Role

    profile, at = start.broker.profile(account.profile, Role.ROTATOR), start.broker.true_clock()
    mail = csr_mail(account, request, profile, to, at)
    content = draft(mail, profile.submission)  # or what is wrong with it is said before anything is noted
    submission = Submission(at, "eml", ", ".join(mail.to), reference, mail.message_id)
    submitted = start.broker.rotation.submit(account.name, request.number, submission)
    write_output(out, content)  # last: a request that was closed meanwhile leaves no mail. Again, it is the same one
    note(f"mail draft {out}: open it in your mail program and send it" if out != "-" else "send this mail")
    return submitted


def _lint(start: Start, account: Account, csr: str) -> tuple[Finding, ...]:
    from broker.pki.csr import parse
    from broker.pki.lint import lint_csr
    from broker.vault.policies import Role

    profile = start.broker.profile(account.profile, Role.ROTATOR)
    return lint_csr(parse(csr.encode()), profile.subject, profile.key, account.login)


def _facts(request: SigningRequest) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(request)
