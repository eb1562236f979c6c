"""`broker password`: the partner's password."""

from __future__ import annotations

import click

from broker.cli.options import account_argument, read_secret
from broker.cli.output import note
from broker.cli.start import Start
from broker.model.names import AccountName
from broker.model.redactor import Redactor
from broker.model.role import Role
from broker.telemetry import log


@click.group("password", epilog="Example: broker password set acme")
def command() -> None:
    """Set the partner's password: typed or read from a file, never shown."""


@command.command("set", epilog="Example: broker password set acme --password-file - < password.txt")
@account_argument
@click.option("--password-file", default="", metavar="PATH|-", help="Read it from a file or standard input.")
@click.pass_obj
def set_(start: Start, account: AccountName, password_file: str) -> None:
    """Store a new password. If a generation is current, this creates a candidate with the new password.

    Consumers keep the old password until the candidate is promoted. The same password again counts as new, because
    this role cannot read stored passwords.
    """
    broker = start.broker
    broker.account(account, Role.OPERATOR)  # before the prompt
    password = read_secret("Password", password_file)
    log.hide(Redactor([password]).redact)
    after = broker.registry.set_secret(account, password)
    note(f"password {after.password} of {account} is stored")
    if after.candidates and after.candidates[-1].parts.password == after.password:
        note(f"candidate {after.candidates[-1].number} uses it; next: broker rotation promote {account}")
