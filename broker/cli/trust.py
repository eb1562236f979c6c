"""`broker trust`: CAs that verify the partner's server."""

from collections.abc import Sequence

import click

from broker.cli.noun import Noun
from broker.cli.options import accept_ca_option, account_argument, read_input
from broker.cli.output import note, wrote_json
from broker.cli.start import Start
from broker.model.duration import counted
from broker.model.names import AccountName
from broker.pki.reply import read_reply


@click.group("trust", cls=Noun, epilog="Example: broker trust set acme server-ca.pem --accept-ca AB:CD:…")
def command() -> None:
    """CAs that verify the partner's server. No secret is sent to a server that they do not verify."""


@command.verb("set", example="broker trust set acme server-ca.pem --accept-ca AB:CD:…")
@account_argument
@click.argument("file", metavar="FILE|-")
@accept_ca_option
@click.option("--replace", "replacing", is_flag=True, help="Drop the CAs of the current generation.")
def set_(start: Start, account: AccountName, file: str, accept_ca: Sequence[str], replacing: bool) -> None:
    """Set the CAs that verify the partner's server: those in FILE that --accept-ca names.

    FILE is PEM, DER, PKCS#7, a mail or a zip. If a generation is current, this creates a candidate with the new CAs
    beside the current ones; consumers keep the current one until it is promoted. Then bundles carry old and new CAs,
    and work before and after the partner changes its server's certificate. Afterwards --replace drops the old CAs: as
    long as the server needs them, that candidate is not promoted.

    Accept a CA that signs client certificates with the reply instead: broker cert import.
    """
    after = start.broker.registry.set_trust(account, read_reply(read_input(file), file), accept_ca, replacing=replacing)
    known = after.ca_set(after.trust) if after.trust else None
    candidate = next((g for g in reversed(after.candidates) if g.parts.trust == after.trust), None)
    shown = known.fingerprints if known else ()
    number = candidate.number if candidate else None
    if wrote_json({"account": account, "fingerprints": shown, "candidate": number}):
        return
    note(f"the server of {account} is verified by {counted(len(shown), 'CA')}")
    if candidate:
        note(f"candidate {candidate.number} uses them; next: broker rotation promote {account}")
