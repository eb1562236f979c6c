"""`broker csr`: signing requests."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import click

from broker.cli.exits import REFUSED
from broker.cli.noun import Noun
from broker.cli.options import (
    account_argument,
    moment,
    output_file_option,
    profile_option,
    read_input,
    reason_option,
    require_consent,
    require_free_output,
    write_output,
    yes_option,
)
from broker.cli.output import clean, note, show_done, show_findings, wants_json, wrote_json
from broker.cli.start import Start
from broker.errors import InputError, RefusedError
from broker.model.finding import has_errors
from broker.model.generation import Closed, Submission
from broker.model.names import AccountName, mail_address
from broker.model.role import Role
from broker.partners import catalogue
from broker.people.eml import csr_mail, draft
from broker.pki.csr import parse
from broker.pki.lint import lint_csr


@click.group("csr", cls=Noun, epilog="Example: broker csr new acme --out acme.csr")
def command() -> None:
    """Create signing requests and track them until the partner answers."""


@command.verb("new", example="broker csr new acme --out acme.csr")
@account_argument
@output_file_option("--out", "File for the CSR.  [default: standard output]", default="-")
@click.option("--supersede", is_flag=True, help="Close the open request and create a new key, on every call.")
@yes_option
def new(start: Start, account: AccountName, out: str, supersede: bool, yes: bool) -> None:
    """Print the account's open signing request; create key and CSR if it has none.

    The private key is stored in Vault before the CSR is printed; this command never reads it back.
    """
    broker = start.broker
    found = broker.account(account, Role.ROTATOR)
    if supersede and found.open_request:
        require_consent(found, found.open_request, yes=yes)
        broker.rotation.close_request(account, Closed.SUPERSEDED, found.open_request.number)
    request = broker.rotation.draft(account)
    profile = broker.profile(found.profile, Role.ROTATOR)
    findings = lint_csr(parse(request.csr.encode()), profile.subject, profile.key, found.login)
    if not wants_json() or out != "-":
        write_output(out, request.csr.encode())
    if wrote_json(asdict(request) | {"findings": findings}):
        return
    note(f"signing request {request.number} of {account}, SPKI {request.spki[:16]}…")
    show_findings(findings)
    note(f"next: broker csr submit {account}")


@command.verb("show", example="broker csr show acme --number 2")
@account_argument
@click.option("--number", type=click.IntRange(1), help="Number of the request.  [default: the open one]")
def show(start: Start, account: AccountName, number: int | None) -> None:
    """Print a signing request and its history."""
    found = start.broker.account(account)
    request = found.request(number) if number else found.open_request
    if request is None:
        raise RefusedError(f"{account} has no open signing request", hint=f"broker csr new {account} makes one")
    if wrote_json(request):
        return
    note(f"signing request {request.number} of {account}, {request.state}, drafted {request.drafted_at:%F %TZ}")
    if request.closed_because:
        note(f"  refused {request.closed_at:%F %TZ}: {request.closed_because}")
    for sent in request.submissions:
        note(f"  sent {sent.at:%F %TZ} via {sent.via}" + (f", reference {sent.reference}" if sent.reference else ""))
    if request.csr:
        click.echo(request.csr, nl=False)


@command.verb("lint", example="broker csr lint request.pem --login MZP1234567")
@click.argument("file", metavar="FILE|-")
@profile_option
@click.option("--login", default="", help="Login that the common name must equal.")
def lint(start: Start, file: str, profile: str, login: str) -> int:
    """Check a CSR against the partner's rules. Needs no vault for a built-in profile."""
    rules = catalogue.builtin(profile) if profile in catalogue.names() else start.broker.profile(profile, Role.OPERATOR)
    parsed = parse(read_input(file))
    findings = lint_csr(parsed, rules.subject, rules.key, login)
    bad = has_errors(findings)
    if not wrote_json({"subject": str(parsed.name), "success": not bad, "findings": findings}):
        click.echo(clean(parsed.name))
        show_findings(findings, err=False)
        click.echo("refused" if bad else "good" if not findings else "good, with warnings")
    return REFUSED if bad else 0


@command.verb("submit", example="broker csr submit acme --out acme.eml")
@account_argument
@output_file_option("--out", "File for the mail draft.  [default: ACCOUNT-N.eml]")
@click.option("--to", multiple=True, metavar="MAIL", help="Recipient in place of the account's contacts (repeatable).")
@click.option("--sent-at", default="", metavar="TIME", help="Record that it was sent by hand at this time (UTC).")
@click.option("--reference", default="", help="The partner's ticket number, or another reference.")
def submit(start: Start, account: AccountName, out: str, to: Sequence[str], sent_at: str, reference: str) -> None:
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
    require_free_output(out, "the mail")
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
    wrote_json(submitted)


@command.verb("cancel", example="broker csr cancel acme")
@account_argument
@yes_option
def cancel(start: Start, account: AccountName, yes: bool) -> None:
    """Close the open signing request and destroy its key. A late reply to it is refused."""
    _close(start, account, Closed.CANCELLED, "", yes=yes)


@command.verb("refused", example="broker csr refused acme --reason 'O is not the company of the contract'")
@account_argument
@reason_option
@yes_option
def refused(start: Start, account: AccountName, reason: str, yes: bool) -> None:
    """Record that the partner's people refused the open signing request, and why. Its key is destroyed.

    The next step is a corrected request. As long as they have not answered, leave it open: status says when they are
    late.
    """
    _close(start, account, Closed.REJECTED, reason, yes=yes)
    note(f"next, once what they refused is corrected: broker csr new {account}")


def _close(start: Start, account: AccountName, why: Closed, reason: str, *, yes: bool) -> None:
    broker = start.broker
    found = broker.account(account, Role.ROTATOR)
    request = found.open_request or next((r for r in found.requests[-1:] if r.closed is why), None)
    if request is None:
        raise RefusedError(f"{account} has no open signing request")
    if not request.closed:
        require_consent(found, request, yes=yes)
    broker.rotation.close_request(account, why, request.number, reason)
    done = f"signing request {request.number} of {account} is {why.value}"
    show_done(done, changed=not request.closed, account=account, request=request.number, closed=why)


def _sent_at(text: str, drafted_at: datetime, now: datetime) -> datetime:
    """Return the time in `text`, but not before the time of drafting on that day; raise `InputError` for the future."""
    at = moment(text)
    if at == drafted_at.replace(hour=0, minute=0, second=0, microsecond=0):
        return drafted_at
    if at > now:
        raise InputError(f"--sent-at {text} is in the future", hint="give it in UTC, and check the clock")
    return at
