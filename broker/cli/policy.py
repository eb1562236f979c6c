"""`broker policy`: the Vault policy of a consumer, as text, and the decision about a right with its reason."""

from collections.abc import Sequence

import click

from broker.cli.broker_service import token
from broker.cli.consumer_options import rights_option, subject_options
from broker.cli.noun import Noun
from broker.cli.options import application_argument
from broker.cli.output import show_done, wrote_json
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.lease import BundleKind, Caller
from broker.model.names import AccountName, checked_name
from broker.model.role import Role


@click.group("policy", cls=Noun, epilog="Example: broker policy render reporting --right acme/reporting")
def command() -> None:
    """Print the policy of a consumer, and say why a caller may not have a bundle."""


@command.verb("render", example="broker policy render reporting --right acme/reporting > reporting.hcl")
@click.argument("name")
@rights_option
@subject_options
@click.option("--script", is_flag=True, help="Print the commands for policy, entity and login, as a shell script.")
def render(
    start: Start, name: str, rights: Sequence[tuple[AccountName, str]], subject: tuple[str, str] | None, *, script: bool
) -> None:
    """Print the policy that grants a consumer exactly the named rights, as HCL. Changes nothing.

    For people who manage Vault by Terraform or by hand; `broker vault enrol` does it all. With --script, the login is
    an AppRole, or the subject of --issuer.
    """
    if not rights or (subject and not script):
        missing = "--right" if not rights else "--script"
        raise InputError(f"{missing} is missing", hint="broker policy render --help")
    broker, consumer = start.broker, checked_name(name, "consumer")
    paths = [broker.vaults.right(broker.account(account), application) for account, application in rights]
    if script:
        text = broker.vaults.enrol_script(consumer, paths, broker.vaults.subject(*subject) if subject else None)
    else:
        text = broker.vaults.consumer_policy(paths)
    if not wrote_json({"consumer": consumer, "rights": paths, "script" if script else "policy": text}):
        click.echo(text, nl=False)


@command.verb("check", example="broker policy check acme/reporting --token-file reporting.token")
@application_argument
@click.option("--token-file", default="", metavar="PATH|-", help="Vault token of a caller.")
@click.option("--jwt-file", default="", metavar="PATH|-", help="JWT of a caller.")
@click.option("--consumer", default="", metavar="NAME", help="Name of a consumer that was enrolled.")
def check(start: Start, application: tuple[AccountName, str], token_file: str, jwt_file: str, consumer: str) -> None:
    """Say whether a caller may have bundles of an application, and if not, why: the service does not tell it.

    A token or JWT is judged as the service does it, with the login of the server role, but without the caller's
    address. The name of a consumer is looked up with VAULT_TOKEN, the token of an administrator.
    """
    if bool(token_file) + bool(jwt_file) + bool(consumer) != 1:
        raise InputError("give one of --token-file, --jwt-file and --consumer", hint="broker policy check --help")
    account, name = application
    broker = start.broker
    if consumer:
        right = broker.vaults.right(broker.account(account), name)
        broker.vaults.require_right(checked_name(consumer, "consumer"), right)
        found = consumer
    else:
        broker.account(account, Role.SERVER).application(name)
        caller = Caller(token(token_file or jwt_file), is_jwt=bool(jwt_file))
        found = broker.issuing.judged(caller, account, name, BundleKind.DIRECT).name
    show_done(f"{found} may have bundles of {account}/{name}", consumer=found)
