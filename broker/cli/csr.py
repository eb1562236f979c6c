"""`broker csr`: signing requests."""

import sys
from typing import Any

import click
from msgspec.structs import asdict

from broker.cli.csr_submit import submit
from broker.cli.exits import REFUSED
from broker.cli.noun import Noun
from broker.cli.options import (
    account_argument,
    output_file_option,
    profile_option,
    read_input,
    reason_option,
    require_consent,
    the_reason,
    write_output,
    yes_option,
)
from broker.cli.output import clean, note, show_done, show_findings, wants_json, wrote_json
from broker.cli.start import Start
from broker.errors import InputError, RefusedError
from broker.model.finding import has_errors
from broker.model.generation import Closed
from broker.model.names import AccountName
from broker.model.role import Role
from broker.partners import catalogue
from broker.pki.csr import parse
from broker.pki.lint import lint_csr


@click.group("csr", cls=Noun, epilog="Example: broker csr new acme --out acme.csr")
def command() -> None:
    """Create signing requests and track them until the partner answers."""


@command.verb("new", example="broker csr new acme --out acme.csr")
@account_argument
@output_file_option("--out", "File for the CSR.  [default: standard output]", default="-")
@click.option("--supersede", is_flag=True, help="Close the open request and create a new one, on every call.")
@click.option(
    "--reuse-key", is_flag=True, help="Use the key of the current generation again, if the profile allows it."
)
@click.option("--compromised", is_flag=True, help="Others know the current key: replace it now (requires --reason).")
@click.option(
    "--serving",
    type=click.Choice(["keep", "suspend"]),
    help="With --compromised: go on issuing bundles, or suspend the account.  [default: asked for]",
)
@click.option("--reason", default="", metavar="TEXT", help="With --compromised: the reason, for the evidence.")
@yes_option
def new(start: Start, account: AccountName, out: str, supersede: bool, yes: bool, **how: Any) -> None:
    """Print the account's open signing request; create key and CSR if it has none.

    The private key is stored in Vault before the CSR is printed; this command never reads it back.

    With --compromised, the mail of csr submit asks the partner to revoke the old certificate too, the old generation is
    retired without an overlap, and status says COMPROMISED until rotation revoked confirms that the partner did so.
    """
    _require_fitting(supersede, **how)
    broker = start.broker
    found = broker.account(account, Role.ROTATOR)
    if how["reuse_key"]:
        broker.rotation.reusable(found)
    if supersede and found.open_request:
        require_consent(found, found.open_request, yes=yes)
        broker.rotation.close_request(account, Closed.SUPERSEDED, found.open_request.number)
    if how["compromised"]:
        suspend = (how["serving"] or _asked_serving()) == "suspend"
        request = broker.rotation.report_compromise(account, how["reason"].strip(), suspend=suspend)
        note(f"others know the key of {account}; bundles are {'not issued' if suspend else 'still issued'}")
    elif how["reuse_key"]:
        request = broker.rotation.draft_with_same_key(account)
    else:
        request = broker.rotation.draft(account)
    profile = broker.profile(found.profile, Role.ROTATOR)
    findings = [
        *lint_csr(parse(request.csr.encode()), profile.subject, profile.key, found.login),
        *broker.arriving.unwatched(found.subject),
    ]
    if not wants_json() or out != "-":
        write_output(out, request.csr.encode())
    if wrote_json(asdict(request) | {"findings": findings}):
        return
    note(f"signing request {request.number} of {account}, SPKI {request.spki[:16]}…")
    show_findings(findings)
    note(f"next: broker csr submit {account}")


def _require_fitting(supersede: bool, *, compromised: bool, reuse_key: bool, serving: str | None, reason: str) -> None:
    the_reason(compromised, reason, "--compromised")
    if serving and not compromised:
        raise InputError("--serving requires --compromised", hint="add --compromised, or leave --serving out")
    if compromised and (supersede or reuse_key):
        hint = "leave them out: a request with another key stays open, and one with the compromised key is closed"
        raise InputError("--compromised cannot be combined with --supersede or --reuse-key", hint=hint)


def _asked_serving() -> str:
    """Ask whether bundles are issued until the new set is current; raise `InputError` without a terminal."""
    if sys.stdin.isatty():
        question = "Issue bundles with the old key until the new set is current, or suspend the account"
        return str(click.prompt(question, type=click.Choice(["keep", "suspend"]), err=True))
    hint = "--serving keep issues bundles until the new set is current; --serving suspend issues none"
    raise InputError("--compromised requires --serving, and stdin is not a terminal", hint=hint)


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


command.verb("submit", example="broker csr submit acme --out acme.eml")(submit)


@command.verb("cancel", example="broker csr cancel acme")
@account_argument
@yes_option
def cancel(start: Start, account: AccountName, yes: bool) -> None:
    """Close the open signing request and destroy its key. A late reply to it is refused."""
    _close(start, account, Closed.CANCELLED, "", yes=yes)


@command.verb("refused", example="broker csr refused acme --reason 'wrong O'")
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
