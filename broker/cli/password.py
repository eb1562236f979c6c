"""`broker password`: the partner's password."""

import click

from broker.cli.noun import Noun
from broker.cli.options import account_argument, read_secret
from broker.cli.output import note, show_done
from broker.cli.start import Start
from broker.model.names import AccountName
from broker.model.redactor import Redactor
from broker.model.role import Role
from broker.telemetry import log


@click.group("password", cls=Noun, epilog="Example: broker password set acme")
def command() -> None:
    """Set the partner's password: typed or read from a file, never shown."""


@command.verb("set", example="broker password set acme --password-file - < password.txt")
@account_argument
@click.option("--password-file", default="", metavar="PATH|-", help="Read it from a file or standard input.")
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
    using = next((g.number for g in after.candidates if g.parts.password == after.password), None)
    done = f"password {after.password} of {account} is stored"
    show_done(done, account=account, password=after.password, candidate=using)
    if using:
        note(f"candidate {using} uses it; next: broker rotation promote {account}")
