"""`broker explain`: the request that is sent to the partner, with placeholders for secrets."""

from collections.abc import Sequence

import click

from broker.cli.options import account_argument, generation_option
from broker.cli.output import wrote_json
from broker.cli.start import Start
from broker.model.changes.moving import generation_to_try
from broker.model.fingerprint import format_fingerprint
from broker.model.names import AccountName
from broker.model.role import Role
from broker.model.stage import Stage
from broker.partners.request import as_curl, as_http, recipe


@click.command("explain", epilog="Example: broker explain acme > for-the-partner.txt")
@account_argument
@generation_option("the newest candidate, else the current one")
@click.pass_obj
def command(start: Start, account: AccountName, generation: int) -> None:
    """Print the canary's request with placeholders for secrets, its client certificate, and the answers so far.

    The output is safe to send to the partner's support.
    """
    broker = start.broker
    found = broker.account(account)
    chosen = found.generation(generation) if generation else generation_to_try(found)
    parts, profile = found.parts_of(chosen), broker.profile(found.profile, Role.AUDITOR)
    probe, certificate = profile.probe, found.certificate(parts.certificate)
    made = recipe(found.base_url, profile.authentication, probe.method, probe.path, tuple(probe.query.items()))
    http, curl = as_http(made, profile.authentication), as_curl(made, profile.authentication)
    server_ca = found.ca_set(parts.trust).fingerprints
    changes = sorted(chosen.parts.names) if chosen.stage is Stage.CANDIDATE else []
    answers = [{"at": t.at, "verdict": t.verdict} for t in found.tries if t.generation == chosen.number]
    shown = {"subject": certificate.subject, "issuer": certificate.issuer, "serial": certificate.serial}
    dates = {"not_before": certificate.not_before, "not_after": certificate.not_after}
    if wrote_json(
        {
            "account": account,
            "generation": chosen.number,
            "changes": changes,
            "certificate": shown | dates | {"fingerprint": certificate.ref},
            "server_ca": server_ca,
            "answers": answers,
            "http": http,
            "curl": curl,
        }
    ):
        return
    valid = f"{certificate.not_before:%F %TZ} to {certificate.not_after:%F %TZ}"
    shown |= {"valid": valid, "SHA-256": format_fingerprint(certificate.ref)}
    _show(f"Request, as {found.login} ({found.profile}, {found.environment})", http.splitlines())
    _show("The same with curl", curl.splitlines())
    _show(
        f"Client certificate (generation {chosen.number}, {chosen.stage.value})",
        [f"{name}: {value}" for name, value in shown.items()],
    )
    _show("CAs that verify the server", [f"SHA-256 {format_fingerprint(ca)}" for ca in server_ca])
    if changes:
        _show("Changes", [", ".join(changes)])
    _show("Expected answer", [f"{', '.join(map(str, sorted(probe.expect)))}, {profile.media_type}"])
    _show("Refusals of this partner", list(map(str, profile.refusals)) or ["none known"])
    _show("Answers so far", [f"{a['at']:%F %TZ}  {a['verdict'] or 'never answered'}" for a in answers] or ["none"])


def _show(title: str, lines: Sequence[str]) -> None:
    click.echo("\n".join([f"{title}:\n", *(f"  {line}" for line in lines), ""]))
