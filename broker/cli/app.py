"""`broker app`: applications of an account."""

from typing import Final

import click

from broker.cli.noun import Noun
from broker.cli.options import account_argument, application_argument, confirm, yes_option
from broker.cli.output import note, show_done, show_table, wrote_json
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.account import Account
from broker.model.generation import Application
from broker.model.names import AccountName
from broker.model.role import Role

_LONGEST: Final = 256


@click.group("app", cls=Noun, epilog="Example: broker app add acme/reporting")
def command() -> None:
    """Manage the applications of an account: one client_id each."""


@command.verb("add", example="broker app add acme/reporting")
@application_argument
@click.option("--client-id", default="", help="The partner's id for it, if known already.")
def add(start: Start, application: tuple[AccountName, str], client_id: str) -> None:
    """Add an application. Its client_id can be set later; it comes with the partner's reply."""
    account, name = application
    found = start.broker.registry.add_application(account, name, _checked(client_id) if client_id else "")
    after = found.application(name)
    later = "" if after.client_id else ": its client_id comes with the partner's reply"
    show_done(f"application {account}/{name}{later}", account=account, application=name, client_id=after.client_id)
    _warn(found, after)


@command.verb("set", example="broker app set acme/reporting --client-id 1b2c3d4e-…")
@application_argument
@click.option("--client-id", required=True, help="The partner's id for it.")
def set_(start: Start, application: tuple[AccountName, str], client_id: str) -> None:
    """Set the client_id of an application. If a generation is current, another one than now makes a candidate.

    Consumers keep the old client_id until the candidate is promoted, and a roll-back brings it back. The first one of
    an application is used immediately.
    """
    account, name = application
    done = start.broker.registry.set_application(account, name, _checked(client_id))
    using = next((g.number for g in done.account.candidates if g.parts.client_ids.get(name) == client_id), None)
    message = f"application {account}/{name} {'gets' if using else 'has'} client_id {client_id}"
    show_done(message, changed=done.changed, account=account, application=name, client_id=client_id, candidate=using)
    if using and done.changed:
        note(f"candidate {using} uses it; next: broker rotation promote {account}")
    _warn(done.account, Application(name, client_id))


@command.verb("list", example="broker app list acme -o json")
@account_argument
def list_(start: Start, account: AccountName) -> None:
    """List the applications of an account."""
    found = start.broker.account(account).applications
    if wrote_json(found):
        return
    show_table(
        ["application", "client_id", "rejected"],
        [(f"{account}/{a.name}", a.client_id, a.rejected_at) for a in found],
        empty=f"{account} has no application yet: broker app add {account}/APPLICATION",
    )


@command.verb("remove", example="broker app remove acme/reporting --yes")
@application_argument
@yes_option
def remove(start: Start, application: tuple[AccountName, str], yes: bool) -> None:
    """Remove an application. No bundles are issued for it any more."""
    account, name = application
    if any(found.name == name for found in start.broker.account(account, Role.OPERATOR).applications):
        confirm(f"remove {account}/{name}?", yes=yes)
    start.broker.registry.remove_application(account, name)
    show_done(f"application {account}/{name} is removed", account=account, application=name)


def _warn(account: Account, application: Application) -> None:
    """Warn if another application has the same client_id: the partner cannot tell the two apart."""
    for other in account.sharing(application):
        note(f"warning: {account.name}/{application.name} and {account.name}/{other} have the same client_id")


def _checked(client_id: str) -> str:
    if not (client_id.isascii() and client_id.isprintable() and " " not in client_id):
        raise InputError("a client_id consists of printable ASCII characters without blanks")
    if not 0 < len(client_id) <= _LONGEST:
        raise InputError(f"the client_id has {len(client_id)} characters", hint=f"use 1 to {_LONGEST} characters")
    return client_id
