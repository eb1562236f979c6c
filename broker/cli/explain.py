"""`broker explain`: the request that is sent to the partner, with placeholders for secrets."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.options import account_argument, generation_option
from broker.cli.output import output_option, show_json
from broker.cli.start import Start
from broker.model.account import Account
from broker.model.generation import Generation
from broker.model.names import AccountName
from broker.model.role import Role
from broker.partners.request import as_curl, as_http, recipe
from broker.pki.certificates import format_fingerprint
from broker.rotation.choosing import generation_to_try


@click.command("explain", epilog="Example: broker explain acme > for-the-partner.txt")
@account_argument
@generation_option("the newest candidate, else the current one")
@output_option
@click.pass_obj
def command(start: Start, account: AccountName, generation: int, output: str) -> None:
    """Print the canary's request with placeholders for secrets, its client certificate, and the answers so far.

    The output is safe to send to the partner's support.
    """
    broker = start.broker
    found = broker.account(account)
    chosen = found.generation(generation) if generation else generation_to_try(found)
    profile = broker.profile(found.profile, Role.AUDITOR)
    probe = profile.probe
    made = recipe(
        found.base_url,
        profile.authentication,
        probe.method,
        probe.path,
        tuple(probe.query.items()),
    )
    http, curl = as_http(made, profile.authentication), as_curl(made, profile.authentication)
    facts = _facts(found, chosen)
    if output == "json":
        show_json(facts | {"http": http, "curl": curl})
        return
    click.echo(f"Request, as {found.login} ({found.profile}, {found.environment}):\n")
    click.echo(_indented(http))
    click.echo("The same with curl:\n")
    click.echo(_indented(curl))
    click.echo(f"\nClient certificate (generation {chosen.number}, {chosen.stage.value}):\n")
    certificate = found.certificate(found.parts_of(chosen).certificate)
    click.echo(f"  subject: {certificate.subject}")
    click.echo(f"  issuer: {certificate.issuer}")
    click.echo(f"  serial: {certificate.serial}")
    click.echo(f"  valid: {certificate.not_before:%F %TZ} to {certificate.not_after:%F %TZ}")
    click.echo(f"  SHA-256: {format_fingerprint(certificate.ref)}")
    click.echo("\nCAs that verify the server:\n")
    for fingerprint in facts["server_ca"]:
        click.echo(f"  SHA-256 {format_fingerprint(fingerprint)}")
    click.echo(f"\nExpected answer: {', '.join(map(str, sorted(probe.expect)))}, {profile.media_type}\n")
    click.echo("Refusals of this partner:\n")
    click.echo(_indented("\n".join(map(str, profile.refusals)) or "none known"))
    click.echo("Answers so far:\n")
    for answer in facts["answers"]:
        click.echo(f"  {answer['at']:%F %TZ}  {answer['verdict'] or 'never answered'}")
    if not facts["answers"]:
        click.echo("  none")


def _facts(account: Account, generation: Generation) -> dict[str, Any]:
    certificate = account.certificate(account.parts_of(generation).certificate)
    return {
        "account": account.name,
        "generation": generation.number,
        "certificate": {
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "serial": certificate.serial,
            "not_before": certificate.not_before,
            "not_after": certificate.not_after,
            "fingerprint": certificate.ref,
        },
        "server_ca": account.ca_set(account.parts_of(generation).trust).fingerprints,
        "answers": [{"at": t.at, "verdict": t.verdict} for t in account.tries if t.generation == generation.number],
    }


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
