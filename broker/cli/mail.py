"""`broker mail`: the servers that the broker sends and reads mails with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from broker.addresses import sendable
from broker.cli.noun import Noun
from broker.cli.options import read_password
from broker.cli.output import note, show_done, wrote_json
from broker.cli.start import Start
from broker.errors import BrokerError, InputError
from broker.model.recipient import WEBHOOK
from broker.model.redactor import Redactor
from broker.model.role import Role
from broker.settings import IMAP, OAUTH, SMTP
from broker.telemetry import log

if TYPE_CHECKING:
    from broker.compose.mail import Mail

SECRETS: Final = (SMTP, IMAP, OAUTH, WEBHOOK)


@click.group("mail", cls=Noun, epilog="Example: broker mail test")
def command() -> None:
    """Set the secrets of the mail servers, and test the servers. Everything else is in [mail] of broker.toml."""


@command.verb("set", example="broker mail set smtp --password-file - < password.txt")
@click.argument("name", metavar="smtp|imap|oauth|webhook", type=click.Choice(SECRETS))
@click.option("--password-file", default="", metavar="PATH|-", help="Read it from a file or standard input.")
def set_(start: Start, name: str, password_file: str) -> None:
    """Store a password for SMTP or IMAP, the client secret for [mail.oauth], or the key of the webhook.

    The one before is destroyed.
    """
    secrets = start.broker.mail_secrets(Role.OPERATOR)
    secrets.numbers(name)  # Vault is asked before the person is
    secret = read_password(password_file)
    log.hide(Redactor([secret]).redact)
    number = secrets.store(name, secret)
    table = "[notify]" if name == WEBHOOK else f"[mail.{name}]"
    show_done(f"secret {number} of {table} is stored", name=name, number=number)
    if name == WEBHOOK:
        note("next: broker notify test webhook")
    elif _configured(start.broker.mail):
        note("next: broker mail test")
    else:
        note("next: name the servers under [mail.smtp] and [mail.imap] in broker.toml")


def _configured(mail: Mail) -> list[str]:
    return [name for name in (SMTP, IMAP) if mail.has(name)]


@command.verb("test", example="broker mail test --to you@company.example")
@click.option("--to", default="", metavar="ADDRESS", help="Send a mail to this address too.")
def test(start: Start, to: str) -> None:
    """Log in at the servers of [mail.smtp] and [mail.imap]. Nothing is sent without --to."""
    mail, errors = start.broker.mail, list[BrokerError]()
    if to:
        sendable(to)
    names = _configured(mail)
    if not names or (to and SMTP not in names):
        hint = "set host under [mail.smtp] or [mail.imap] in broker.toml"
        raise InputError(f"no {SMTP.upper() if to else 'mail'} server is configured", hint=hint)
    for name in names:
        try:
            mail.check(name)
            note(f"{mail.server(name)}: logged in as {mail.user(name)}")
        except BrokerError as error:
            errors.append(error)
    if errors:
        for other in errors[1:]:
            note(f"error: {other.message}")
        raise errors[0]
    if to:
        mail.send_test(to)
        note(f"the mail to {to} is accepted")
    wrote_json({"success": True, "servers": names, "to": to or None})
