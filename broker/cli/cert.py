"""`broker cert`: replies of the partner."""

from collections.abc import Sequence

import click

from broker.cli.noun import Noun
from broker.cli.options import (
    accept_ca_option,
    account_argument,
    output_file_option,
    read_input,
    read_inputs,
    require_free_output,
    require_one_reader,
    the_reason,
    typed_command,
    write_output,
)
from broker.cli.output import note, show_details, show_findings, wrote_json
from broker.cli.reply import split_reply
from broker.cli.start import Start
from broker.errors import InputError, RefusedError
from broker.model.finding import Finding, FindingsError
from broker.model.fingerprint import format_fingerprint
from broker.model.names import AccountName
from broker.model.proposal import Outcome
from broker.model.role import Role
from broker.model.stage import Stage
from broker.people.eml import for_contact
from broker.pki.certificates import Description, ca_set, describe
from broker.pki.reply import OtherKeyError, ReplyParts, read_files, read_reply
from broker.pki.verification import ACCEPTABLE
from broker.pki.wrappings import MOST_BYTES
from broker.rotation.receive import ImportOptions, Received

accept_finding_option = click.option(
    "--accept",
    "findings",
    multiple=True,
    type=click.Choice(ACCEPTABLE),
    metavar="FINDING",
    help="Take the certificate despite this finding (requires --reason; repeatable).",
)


def read_cas(file: str) -> bytes:
    """Return the CAs in `file`, nothing for ""; raise `InputError` for those that verify nothing."""
    found = read_input(file) if file else b""
    if file:
        ca_set(found)  # or raises
    return found


@click.group("cert", cls=Noun, epilog="Example: broker cert import acme reply.zip")
def command() -> None:
    """Import or inspect a reply of the partner."""


@command.verb("import", example="broker cert import acme reply.eml --accept-ca AB:CD:…")
@account_argument
@click.argument("files", metavar="[FILE|DIRECTORY|- ...]", nargs=-1)
@click.option("--reply", default="", metavar="ACCOUNT/ID", help="Import a reply that arrived: see broker reply list.")
@accept_ca_option
@click.option("--server-ca", default="", metavar="FILE", help="CAs that verify the server: as broker trust set.")
@click.option("--client-id-for", default="", metavar="APPLICATION", help="Take its client_id from the reply.")
@click.option("--client-id", default="", help="The client_id to take, if the reply has several.")
@accept_finding_option
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the evidence.")
@output_file_option("--draft", "If the reply is refused, write a mail that tells the contact why.")
def import_(
    start: Start,
    account: AccountName,
    files: Sequence[str],
    reply: str,
    accept_ca: Sequence[str],
    server_ca: str,
    client_id_for: str,
    client_id: str,
    findings: Sequence[str],
    reason: str,
    draft: str,
) -> None:
    """Import a reply: match its key, verify it, and create a candidate.

    A reply is one or several files: certificates (PEM, DER, PKCS#7), texts, saved mails (.eml, .mbox), or zip files of
    these. What is good in it is used, and the rest is named. No link is followed, and a private key is never stored.

    A CA that is not accepted yet is refused and shown. Compare its fingerprint with the partner over another channel,
    such as telephone, and pass it with --accept-ca. If anything is refused, nothing is stored. New CAs of the partner's
    server verify it beside the current ones, as with broker trust set.

    An error that only the partner's server can decide about, such as certificate.purpose, is accepted with --accept and
    --reason, for this certificate; its finding says so. Ask the partner first.

    A client_id is taken only if the reply labels it (client_id: …), --client-id-for names its application, and the
    application has none yet. To change one, use broker app set.

    With --draft, a refused reply gives a mail in the profile's language, which answers the mail of the request.
    """
    require_free_output(draft, "the mail")
    if client_id and not client_id_for:
        raise InputError("--client-id requires --client-id-for", hint="--client-id-for APPLICATION")
    if bool(files) == bool(reply):
        raise InputError("give either files or --reply", hint="broker reply list shows what arrived")
    require_one_reader(*files, server_ca)
    arrived = _reply_of(account, reply) if reply else ""
    parts = read_files(read_inputs(files, largest=MOST_BYTES)) if files else None  # before any login
    server = read_cas(server_ca)  # refuses bad CAs even if the reply was imported before
    why = the_reason(bool(findings), reason, "--accept")
    said = ImportOptions(tuple(accept_ca), server, client_id_for, client_id, findings, why, typed_command())
    parts = parts or _arrived(start, account, arrived)
    try:
        received = start.broker.rotation.receive(account, parts, said)
    except (FindingsError, OtherKeyError) as error:
        if draft:
            _write_refusal(start, account, error, draft)
        elif for_contact(_found(error)):
            note(f"to tell the partner why: {typed_command()} --draft {account}.eml")
        raise
    if arrived:
        start.broker.arriving.conclude(account, arrived, Outcome.IMPORTED)
    _show(received)


def _show(received: Received) -> None:
    generation = received.generation
    certificate = received.account.certificate(generation.parts.certificate)
    data = {
        "account": received.account.name,
        "generation": generation.number,
        "stage": generation.stage,
        "not_after": certificate.not_after,
        "client_ids": received.client_ids,
        "findings": received.findings,
    }
    if wrote_json(data):
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
        note(f"next: broker rotation promote {received.account.name}")


def _found(error: FindingsError | OtherKeyError) -> Sequence[Finding]:
    return error.findings if isinstance(error, FindingsError) else (Finding.error("certificate.key", error.message),)


def _write_refusal(start: Start, account: AccountName, error: FindingsError | OtherKeyError, out: str) -> None:
    broker = start.broker
    try:
        content = broker.submitting.refusal(broker.account(account, Role.ROTATOR), _found(error))
    except RefusedError as nothing:
        note(nothing.message)
        return
    write_output(out, content)
    note(f"mail draft {out}: open it in your mail program, read it, and send it" if out != "-" else "send this mail")


def _reply_of(account: AccountName, text: str) -> str:
    """Return the id of a reply of `account`; raise `InputError`."""
    name, id_ = split_reply(text)
    if name != account:
        raise InputError(f"reply {text} is one of {name}", hint="broker reply list shows those of each account")
    return id_


def _arrived(start: Start, account: AccountName, id_: str) -> ReplyParts:
    """Return the content of a reply that arrived; raise `RefusedError` if it holds nothing to import."""
    one = start.broker.arriving.find(account, id_, Role.ROTATOR)
    if not one.material:
        state = f"was {one.outcome.value}" if one.outcome else "holds nothing that can be imported"
        hint = f"broker cert import {account} FILE imports a file; broker reply show {account}/{id_}"
        raise RefusedError(f"reply {account}/{id_} {state}", hint=hint)
    return read_reply(one.material.encode())


@command.verb("inspect", example="broker cert inspect reply.eml")
@click.argument("files", metavar="FILE|DIRECTORY|- ...", nargs=-1, required=True)
def inspect(_: Start, files: Sequence[str]) -> None:
    """Show the certificates and client_ids in files. Needs no vault, stores nothing."""
    require_one_reader(*files)
    parts = read_files(read_inputs(files, largest=MOST_BYTES))
    found = list(map(describe, parts.certificates))
    if wrote_json({"certificates": found, "client_ids": parts.client_ids, "findings": parts.findings}):
        return
    for number, description in enumerate(found):
        if number:
            click.echo()
        show_details(_rows(description))
    for client_id in parts.client_ids:
        click.echo(f"client_id?   {client_id}")
    show_findings(parts.findings)


def _rows(found: Description) -> dict[str, object]:
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
