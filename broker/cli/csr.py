"""`broker csr`: signing requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import click

from broker.cli.exits import REFUSED
from broker.cli.guard import require_consent, yes_option
from broker.cli.options import account_argument, moment, read_input, writable, write_output
from broker.cli.output import clean, note, note_done, output_option, show_findings, show_json
from broker.cli.start import Start
from broker.errors import InputError, RefusedError
from broker.model.account import Account
from broker.model.finding import Finding, has_errors
from broker.model.generation import Closed, Submission
from broker.model.names import AccountName, mail_address
from broker.model.role import Role
from broker.partners import catalogue
from broker.people.eml import csr_mail, draft
from broker.pki.csr import parse
from broker.pki.lint import lint_csr


@click.group("csr", epilog="Example: broker csr new acme --out acme.csr")
def command() -> None:
    """Create signing requests and track them until the partner answers."""


@command.command("new", epilog="Example: broker csr new acme --out acme.csr")
@account_argument
@click.option(
    "--out", default="-", metavar="PATH|-", callback=writable, help="File for the CSR.  [default: standard output]"
)
@click.option(
    "--supersede",
    is_flag=True,
    help="Close the open request first and create a new key, on every call.",
)
@yes_option
@output_option
@click.pass_obj
def new(start: Start, account: AccountName, out: str, supersede: bool, yes: bool, output: str) -> None:
    """Print the account's open signing request; create key and CSR if it has none.

    The private key is stored in Vault before the CSR is printed; this command never reads it back.
    """
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
        show_json(asdict(request) | {"findings": findings})
        return
    note(f"signing request {request.number} of {account}, SPKI {request.spki[:16]}…")
    show_findings(findings)
    note(f"next: broker csr submit {account}")


@command.command("show", epilog="Example: broker csr show acme --number 2")
@account_argument
@click.option("--number", type=click.IntRange(1), help="Number of the request.  [default: the open one]")
@output_option
@click.pass_obj
def show(start: Start, account: AccountName, number: int | None, output: str) -> None:
    """Print a signing request and its history."""
    found = start.broker.account(account)
    request = found.request(number) if number else found.open_request
    if request is None:
        raise RefusedError(f"{account} has no open signing request", hint=f"broker csr new {account} makes one")
    if output == "json":
        show_json(request)
        return
    note(f"signing request {request.number} of {account}, {request.state}, drafted {request.drafted_at:%F %TZ}")
    for sent in request.submissions:
        note(f"  sent {sent.at:%F %TZ} via {sent.via}" + (f", reference {sent.reference}" if sent.reference else ""))
    if request.csr:
        click.echo(request.csr, nl=False)


@command.command("lint", epilog="Example: broker csr lint request.pem --login MZP1234567")
@click.argument("file", metavar="FILE|-")
@click.option("--profile", default="stellantis", show_default=True, help="Profile with the rules.")
@click.option("--login", default="", help="Login that the common name must equal.")
@output_option
@click.pass_obj
def lint(start: Start, file: str, profile: str, login: str, output: str) -> int:
    """Check a CSR against the partner's rules. Needs no vault for a built-in profile."""
    rules = catalogue.builtin(profile) if profile in catalogue.names() else start.broker.profile(profile, Role.OPERATOR)
    parsed = parse(read_input(file))
    findings = lint_csr(parsed, rules.subject, rules.key, login)
    bad = has_errors(findings)
    if output == "json":
        show_json({"subject": str(parsed.name), "success": not bad, "findings": findings})
    else:
        click.echo(clean(parsed.name))
        show_findings(findings, err=False)
        click.echo("refused" if bad else "good" if not findings else "good, with warnings")
    return REFUSED if bad else 0


@command.command("submit", epilog="Example: broker csr submit acme --out acme.eml")
@account_argument
@click.option(
    "--out",
    default="",
    metavar="PATH|-",
    callback=writable,
    help="File for the mail draft.  [default: ACCOUNT-N.eml]",
)
@click.option("--to", multiple=True, metavar="MAIL", help="Recipient in place of the account's contacts (repeatable).")
@click.option("--sent-at", default="", metavar="TIME", help="Record that it was sent by hand at this time (UTC).")
@click.option("--reference", default="", help="The partner's ticket number, or another reference.")
@output_option
@click.pass_obj
def submit(
    start: Start, account: AccountName, out: str, to: Sequence[str], sent_at: str, reference: str, output: str
) -> None:
    """Write the mail that asks the partner to sign, with the CSR attached, and record it as sent.

    With --sent-at, only record that it was sent by hand. The lead time counts from here.
    """
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
        raise InputError("--out and --sent-at cannot be combined: a mail that was sent needs no draft")
    if out == "-" and output == "json":
        raise InputError("standard output takes either the mail or JSON", hint="--out FILE for the mail")
    now, content = broker.true_clock(), b""
    if sent_at:
        submission = Submission(_sent_at(sent_at, request.drafted_at, now), "hand", ", ".join(to), reference)
    else:
        profile = broker.profile(found.profile, Role.ROTATOR)
        mail = csr_mail(found, request, profile, to, now)
        content = draft(mail, profile.submission)  # raises before anything is recorded
        submission = Submission(now, "eml", ", ".join(mail.to), reference, mail.message_id)
    submitted = broker.rotation.submit(account, request.number, submission)
    if sent_at:
        note(f"recorded: request {submitted.number} of {account} was sent at {submission.at:%F %TZ}")
    else:
        file = out or f"{account}-{request.number}.eml"
        write_output(file, content)  # last: if the request was closed meanwhile, no mail is written
        note(f"mail draft {file}: open it in your mail program and send it" if file != "-" else "send this mail")
    if output == "json":
        show_json(submitted)


@command.command("cancel", epilog="Example: broker csr cancel acme --rejected")
@account_argument
@click.option("--rejected", is_flag=True, help="Record that the partner rejected it.")
@yes_option
@click.pass_obj
def cancel(start: Start, account: AccountName, rejected: bool, yes: bool) -> None:
    """Close the open signing request and destroy its key. A late reply to it is refused."""
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


def _sent_at(text: str, drafted_at: datetime, now: datetime) -> datetime:
    """Return the time in `text`, but not before the time of drafting on that day; raise `InputError` for the future."""
    at = moment(text)
    if at == drafted_at.replace(hour=0, minute=0, second=0, microsecond=0):
        return drafted_at
    if at > now:
        raise InputError(f"--sent-at {text} is in the future", hint="give it in UTC, and check the clock")
    return at


def _lint(start: Start, account: Account, csr: str) -> tuple[Finding, ...]:
    profile = start.broker.profile(account.profile, Role.ROTATOR)
    return lint_csr(parse(csr.encode()), profile.subject, profile.key, account.login)
