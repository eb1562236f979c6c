"""Which CA the partner's server is known by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from broker.cli.options import accept_ca_option, account_argument, read_input
from broker.cli.output import note, output_option, show_json
from broker.model.names import AccountName

if TYPE_CHECKING:
    from broker.cli.start import Start

__all__ = ["command"]


@click.group("trust", epilog="Example: broker trust set acme server-ca.pem --accept-ca AB:CD:…")
def command() -> None:
    """Which CA the partner's server is known by. Nothing secret is sent to a server that it does not vouch for."""


@command.command("set", epilog="Example: broker trust set acme server-ca.pem --accept-ca AB:CD:…")
@account_argument
@click.argument("file", metavar="FILE|-")
@accept_ca_option
@output_option
@click.pass_obj
def set_(start: Start, account: AccountName, file: str, accept_ca: Sequence[str], output: str) -> None:
    """Know the partner's server by the CAs in a file, PEM, DER, PKCS#7 or a zip, that --accept-ca names.

    Where a set is current, a candidate with the new trust is made, to be tried: nothing changes for consumers until it
    is promoted. A CA that signs certificates is accepted with the reply instead: broker cert import.
    """
    after = start.broker.registry.set_trust(account, read_input(file), accept_ca)
    known = after.ca_set(after.trust) if after.trust else None
    candidate = next((g for g in reversed(after.candidates) if g.parts.trust == after.trust), None)
    if output == "json":
        shown = known.fingerprints if known else ()
        show_json({"account": account, "fingerprints": shown, "candidate": candidate.number if candidate else None})
        return
    note(f"the server of {account} is known by {len(known.fingerprints) if known else 0} CA(s) from now on")
    if candidate:
        note(f"generation {candidate.number} would use it; next: broker rotation promote {account}")
