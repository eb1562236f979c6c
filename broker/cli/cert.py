"""What the partner sent back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from broker.cli.options import accept_ca_option, account_argument, read_input, require_one_reader
from broker.cli.output import note, output_option, show_details, show_findings, show_json
from broker.errors import InputError
from broker.model.names import AccountName
from broker.model.stage import Stage

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.pki.certificates import Description

__all__ = ["command"]


@click.group("cert", epilog="Example: broker cert import acme reply.zip")
def command() -> None:
    """What the partner sent back: import it, or look at it."""


@command.command(
    "import", epilog="Example: broker cert import acme reply.zip --accept-ca AB:CD:…  --client-id-for reporting"
)
@account_argument
@click.argument("file", metavar="FILE|-")
@accept_ca_option
@click.option(
    "--server-ca", default="", metavar="FILE", help="CAs to know the partner's server by, if not the reply's."
)
@click.option(
    "--client-id-for", default="", metavar="APPLICATION", help="The reply brings this application's client_id."
)
@click.option("--client-id", default="", help="Which of the client_ids in the reply, if it names several.")
@output_option
@click.pass_obj
def import_(
    start: Start,
    account: AccountName,
    file: str,
    accept_ca: Sequence[str],
    server_ca: str,
    client_id_for: str,
    client_id: str,
    output: str,
) -> None:
    """Import a reply: PEM, DER, PKCS#7, or a zip of these. It is matched by its key, judged, and becomes a candidate.

    A CA that nobody has accepted yet is refused and shown: compare its fingerprint with the partner by another way,
    by telephone say, and give it with --accept-ca. Nothing is stored where anything is refused.

    A client_id is taken only if the reply calls it one (client_id: …), --client-id-for names its application, and
    that has no other yet: broker app set changes it.
    """
    from broker.pki.certificates import ca_set
    from broker.rotation.receive import Said

    if client_id and not client_id_for:
        raise InputError("--client-id says which, and not whose", hint="--client-id-for APPLICATION")
    require_one_reader(file, server_ca)
    server = read_input(server_ca) if server_ca else b""
    if server_ca:
        ca_set(server)  # or refuses, also where the reply is known already
    said = Said(tuple(accept_ca), server, client_id_for, client_id)
    received = start.broker.rotation.receive(account, read_input(file), said)
    generation = received.generation
    certificate = received.account.certificate(generation.parts.certificate)
    if output == "json":
        show_json(
            {
                "account": account,
                "generation": generation.number,
                "stage": generation.stage.value,
                "not_after": certificate.not_after,
                "client_ids": received.client_ids,
                "findings": received.findings,
            }
        )
        return
    show_details(
        {
            "generation": f"{generation.number}, {generation.stage.value}",
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "valid": f"{certificate.not_before:%F} to {certificate.not_after:%F}",
            "client_ids": ", ".join(received.client_ids),
        }
    )
    show_findings(received.findings)
    if generation.stage is Stage.CANDIDATE:
        note(f"next: broker rotation promote {account}")


@command.command("inspect", epilog="Example: broker cert inspect reply.zip")
@click.argument("file", metavar="FILE|-")
@output_option
def inspect(file: str, output: str) -> None:
    """Show what a file holds: every certificate, and client_ids. Needs no vault, stores nothing."""
    from broker.pki.certificates import describe
    from broker.pki.reply import read_reply

    parts = read_reply(read_input(file))
    found = [describe(c) for c in parts.certificates]
    if output == "json":
        show_json(
            {"certificates": [asdict(d) for d in found], "client_ids": parts.client_ids, "findings": parts.findings}
        )
        return
    for number, description in enumerate(found):
        if number:
            click.echo()
        show_details(_rows(description))
    for client_id in parts.client_ids:
        click.echo(f"client_id?   {client_id}")
    show_findings(parts.findings)


def _rows(found: Description) -> dict[str, object]:
    from broker.pki.certificates import format_fingerprint

    return {
        "subject": found.subject,
        "issuer": found.issuer,
        "kind": "CA" if found.is_ca else "leaf",
        "serial": found.serial,
        "valid": f"{found.not_before:%F %TZ} to {found.not_after:%F %TZ}",
        "key": f"{found.key}, signed with {found.signed_with or 'an unknown digest'}",
        "usage": ", ".join((*found.key_usage, *found.extended_key_usage)),
        "names": ", ".join(found.alternative_names),
        "SHA-256": format_fingerprint(found.fingerprint),
        "SPKI": found.spki,
    }
