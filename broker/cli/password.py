"""The partner's password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.options import account_argument, read_secret
from broker.cli.output import note
from broker.model.names import AccountName

if TYPE_CHECKING:
    from broker.cli.start import Start

__all__ = ["command"]


@click.group("password", epilog="Example: broker password set acme")
def command() -> None:
    """The partner's password: typed or read from a file, never shown."""


@command.command("set", epilog="Example: broker password set acme --password-file - < password.txt")
@account_argument
@click.option("--password-file", default="", metavar="PATH|-", help="Read it from a file, or standard input.")
@click.pass_obj
def set_(start: Start, account: AccountName, password_file: str) -> None:
    """Store a new password. Where a set is current, a candidate with the new password is made, to be tried.

    Nothing changes for consumers until that candidate is promoted. Nobody here may read the stored one, so the same
    password a second time is a new one too.
    """
    from broker.vault.policies import Role

    broker = start.broker
    broker.account(account, Role.OPERATOR)  # or nobody is asked for a password
    password = read_secret("Password", password_file)
    after = broker.registry.set_secret(account, password)
    note(f"password {after.password} of {account} is stored")
    if after.candidates and after.candidates[-1].parts.password == after.password:
        note(f"generation {after.candidates[-1].number} would use it; next: broker rotation promote {account}")
