"""The vault of a laptop, and setting up any Vault or OpenBao."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.cli.options import require_apart, split_application, writable_secret
from broker.cli.output import note, output_option, show_details, show_json, show_table, step
from broker.errors import DeniedError, InputError
from broker.model.names import checked_name
from broker.paths import place

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.model.secret import Secret
    from broker.vault.connection import Connection
    from broker.vault.setup import Change, Wish

__all__ = ["command"]


@click.group("vault", epilog="Example: broker vault status")
def command() -> None:
    """Run a vault on this machine, or set up the Vault or OpenBao you have."""


@command.command("start", epilog="Example: broker vault start && broker vault status")
@click.option("--audit", is_flag=True, help="Also write Vault's own audit log into the directory.")
@click.pass_obj
def start(start: Start, audit: bool) -> None:
    """Start the embedded OpenBao, set it up, and give each role its login. Again, it changes nothing.

    For laptops, demos and tests: its unseal key lies beside its data.
    """
    from broker.embedded.config import Options
    from broker.embedded.up import up

    directory = start.broker.roles.home.root
    step("starting the vault")
    embedded = up(
        directory,
        mount=start.config["vault.mount"],
        options=Options(audit=audit),
        observer=start.broker.roles.observer,
    )
    note(f"vault at {embedded.settings.address}, process {embedded.running.pid}")
    note(f"its unseal key lies beside its data in {directory}: a laptop's vault, not a production one")


@command.command("stop", epilog="Example: broker vault stop")
@click.pass_obj
def stop(start: Start) -> None:
    """Stop the embedded vault; its data stays."""
    from broker.embedded.server import stop

    note("stopped" if stop(start.broker.roles.home.root) else "it does not run")


@command.command("status", epilog="Example: broker vault status -o json")
@output_option
@click.pass_obj
def status(start: Start, output: str) -> int:
    """Say whether the vault answers, within three seconds, and serves the broker.

    Exit code 3 where it does not answer, 5 where it denies, 2 where no role can log in.
    """
    from broker.cli.exits import CODES
    from broker.embedded.server import status
    from broker.errors import BrokerError, Kind
    from broker.vault.health import health

    roles = start.broker.roles
    embedded = not start.config["vault.address"]
    running = status(roles.home.root) if embedded else None
    facts: dict[str, bool | int | str | None] = {
        "embedded": str(roles.home.root) if embedded else None,
        "pid": running.pid if running else None,
        "answers": None,
        "serves": None,
    }
    code = 0
    try:
        facts["address"] = roles.settings.address
        health(roles.settings)
        facts["answers"] = True
        _serving(start, facts)
    except BrokerError as error:
        code = CODES[error.kind]
        if error.kind is Kind.VAULT_UNAVAILABLE and not facts["answers"]:
            facts["answers"] = False
        facts |= {"message": error.message} | ({"hint": error.hint} if error.hint else {})
    if output == "json":
        show_json(facts)
    else:
        words: dict[object, str] = {True: "yes", False: "no", None: "unknown"}
        show_details(facts | {name: words[facts[name]] for name in ("answers", "serves")})
    return code


def _serving(start: Start, facts: dict[str, bool | int | str | None]) -> None:
    """Try it as one of the roles that work here; raise what a command would meet."""
    from broker.vault.health import lacking
    from broker.vault.policies import Role

    roles = start.broker.roles
    role = Role.AUDITOR if Role.AUDITOR in roles.here or not roles.here else roles.here[0]
    vault = roles.connection(role)
    facts["serves"] = False
    if role is Role.AUDITOR:
        vault.list("accounts")
    elif lacks := lacking(vault, role):
        raise DeniedError(f"the {role.value} role may not {', '.join(lacks)}", hint="broker vault setup --dry-run")
    facts["serves"] = True


@command.command("env", epilog='Example: eval "$(broker vault env)" && bao status')
@click.pass_obj
def env(start: Start) -> None:
    """Print what Vault's own tools need to reach the vault, for a shell to evaluate. No token."""
    settings = start.broker.roles.settings
    values = {
        "VAULT_ADDR": settings.address,
        "VAULT_NAMESPACE": settings.namespace,
        "VAULT_CACERT": str(settings.ca_file or ""),
        "VAULT_CAPATH": str(settings.ca_directory or ""),
        "VAULT_CLIENT_CERT": str(settings.client_certificate or ""),
        "VAULT_CLIENT_KEY": str(settings.client_key or ""),
        "VAULT_TLS_SERVER_NAME": settings.server_name,
    }
    for name, value in values.items():
        if value:
            click.echo(f"export {name}={shlex.quote(value)} BAO_{name.removeprefix('VAULT_')}={shlex.quote(value)}")


@command.command("setup", epilog="Example: VAULT_TOKEN=… broker vault setup --dry-run")
@click.option("--dry-run", is_flag=True, help="Show the difference, change nothing.")
@click.option("--print", "printed", type=click.Choice(["sh", "hcl"]), help="Print it for somebody who may run it.")
@click.option("--account", "accounts", multiple=True, metavar="NAME", help="Only these accounts' secrets; repeat.")
@click.option("--adopt-mount", "adopt", is_flag=True, help="Share mounts that others use; --dry-run shows the effects.")
@click.option("--login-dir", default="", metavar="DIR", help="Also see that each role's login is in DIR/ROLE/, 0600.")
@output_option
@click.pass_obj
def setup(
    start: Start, dry_run: bool, printed: str | None, accounts: Sequence[str], adopt: bool, login_dir: str, output: str
) -> None:
    """Make mount, policies and logins in any Vault or OpenBao. Again, it changes only what differs; it removes nothing.

    Mounts, policies and roles that others use are refused. --adopt-mount shares a KV mount or an AppRole mount with
    them, and leaves its settings as they are.

    A login in DIR that works is kept: for new ones name another DIR, and destroy the old secret-ids in Vault.

    Needs a token that may write mounts and policies, which none of the broker's own roles is: VAULT_TOKEN. The
    embedded vault needs none.
    """
    from broker.vault.ownership import survey, unseen
    from broker.vault.policies import ALL
    from broker.vault.setup import Wish, apply, as_hcl, as_shell, changes, plan, wanted

    wish = Wish(tuple(checked_name(name, "account") for name in accounts) or ALL, adopt=adopt)
    if login_dir and (dry_run or printed):
        raise InputError(
            "--login-dir writes logins, and --dry-run and --print do nothing",
            hint="the printed script says how to fetch them" if printed else "give one of them",
        )
    if printed:
        ground = unseen(start.config["vault.mount"], shared=adopt)
        items = wanted(ground, wish)
        click.echo(as_shell(ground, items) if printed == "sh" else as_hcl(items), nl=False)
        return
    with _administrator(start) as vault:
        planned = plan(vault, wish)
        effects = survey(vault).effects() if adopt else ()
        if not dry_run:
            apply(vault, planned)
        if login_dir:
            _write_logins(vault, Path(login_dir))
    if not dry_run and start.broker.roles.is_embedded:
        _again(start, wish)
    _show_plan(planned, output, dry_run=dry_run)
    for effect in effects:
        note(effect)
    todo = len(changes(planned))
    note(f"{todo} of {len(planned)} {'would change' if dry_run else 'changed'}")


@command.command(
    "enrol", epilog="Example: broker vault enrol reporting --right acme/reporting --token-file reporting.token"
)
@click.argument("name")
@click.option("--right", "rights", multiple=True, required=True, metavar="ACCOUNT/APPLICATION", help="Repeat.")
@click.option(
    "--kind",
    type=click.Choice(["direct", "gateway", "ticket"]),
    default="direct",
    show_default=True,
    help="What the rights are for. Only direct is served yet; the others are for what is to come.",
)
@click.option("--login-dir", default="", metavar="DIR", help="See that role_id and secret_id are there, 0600.")
@click.option(
    "--token-file",
    default="",
    metavar="PATH|-",
    callback=writable_secret,
    help="Log in once, and write the token there, 0600; - prints it.",
)
@click.pass_obj
def enrol(start: Start, name: str, rights: Sequence[str], kind: str, login_dir: str, token_file: str) -> None:
    """Make a consumer: a login whose policy grants exactly the rights named, and nothing of the broker's mount.

    Any other login of yours does as well, if it has an entity and the policy says `update` on the right's path.
    """
    from broker.vault import layout
    from broker.vault.enrolment import (
        ONCE,
        consumer_role,
        enrol_consumer,
        issue_login,
        provide_login,
        require_no_others_login,
    )

    if not login_dir and not token_file:
        raise InputError("where shall the login go?", hint="--login-dir DIR or --token-file PATH|-")
    if login_dir:
        require_apart(f"{login_dir}/role_id", f"{login_dir}/secret_id", token_file)
    paths = []
    for account_name, application in map(split_application, rights):
        account = start.broker.account(account_name)
        account.application(application)
        access = layout.Access(kind)
        paths.append(layout.right(account.profile, account.environment, account.name, application, access))
    with _administrator(start) as vault:
        if login_dir:
            require_no_others_login(vault, consumer_role(name), Path(login_dir))
        enrol_consumer(vault, name, paths)
        if login_dir:
            provide_login(vault, consumer_role(name), Path(login_dir), _write_private)
        if token_file:
            token, seconds = start.broker.roles.log_in(issue_login(vault, consumer_role(name), ONCE))
            _hand_over(token, token_file, f"ends in {seconds // 60} minutes, and nobody renews it")
    note(f"consumer {name} may {', '.join(paths)}")


def _hand_over(token: Secret[str], file: str, ends: str) -> None:
    if file == "-":
        click.echo(token.reveal())
        note(f"the token {ends}")
        return
    _write_private(Path(file), token.reveal().encode())
    note(f"the token in {file} {ends}")


@contextmanager
def _administrator(start: Start) -> Iterator[Connection]:
    """Yield a connection that may write policies: the embedded vault's own, or whoever's token VAULT_TOKEN is."""
    roles = start.broker.roles
    if start.broker.roles.is_embedded:
        from broker.embedded.server import status
        from broker.embedded.up import Embedded, administered
        from broker.errors import VaultUnavailableError

        running = status(start.broker.roles.home.root)
        if running is None:
            raise VaultUnavailableError("the embedded vault does not run", hint="broker vault start")
        with administered(Embedded(running, roles.settings), observer=roles.observer) as vault:
            yield vault
        return
    from broker.vault.connection import Connection
    from broker.vault.logins import token_source

    if roles.settings.token is None:
        raise InputError(
            "setting up needs a token that may write mounts and policies",
            hint="set VAULT_TOKEN; or --print sh, for somebody who has one",
        )
    login = token_source("token", Connection(roles.settings), {})
    vault = Connection(roles.settings, login, observer=roles.observer)
    try:
        yield vault
    finally:
        vault.close()


def _again(start: Start, wish: Wish) -> None:
    from broker.embedded.up import up

    roles = start.broker.roles
    up(roles.home.root, mount=start.config["vault.mount"], wish=wish, observer=roles.observer)


def _write_logins(vault: Connection, directory: Path) -> None:
    """See that each role's login is in its directory, and say which are new."""
    from broker.vault.enrolment import provide_login
    from broker.vault.policies import Role

    made = [r.value for r in Role if provide_login(vault, r.value, directory / r.value, _write_private)]
    if made:
        note(f"new logins of {', '.join(made)} in {directory}: move each to the host that works as it")
    if len(made) < len(Role):
        note(f"logins in {directory} that work are kept: {', '.join(r.value for r in Role if r.value not in made)}")


def _show_plan(planned: Sequence[Change], output: str, *, dry_run: bool) -> None:
    """Show what is done; differences in full where nothing is done yet, or where something that was there changed."""
    from broker.vault.setup import Action

    if output == "json":
        show_json([{"item": c.item.title, "action": c.action.value, "difference": c.difference} for c in planned])
        return
    show_table(["item", "action"], [(c.item.title, c.action.value) for c in planned])
    for change in planned:
        if change.difference and (dry_run or change.action is Action.UPDATE):
            done = "changed" if change.action is Action.UPDATE else "made"
            note(f"{change.item.title} {'would be' if dry_run else 'is'} {done}:")
            for line in change.difference:
                note(f"  {line}")


def _write_private(path: Path, content: bytes) -> None:
    from broker.cli.options import write_output

    try:
        with place(path, make=True, guarded=True):
            write_output(str(path), content, mode=0o600)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
