"""`broker vault`: the embedded vault, and the set-up of any Vault or OpenBao."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from broker.cli.consumer_options import rights_option, subject_options
from broker.cli.exits import CODES
from broker.cli.noun import Noun
from broker.cli.options import output_file_option, require_apart, require_free_output, write_output
from broker.cli.output import note, show_details, show_done, show_table, step, wants_json, wrote_json
from broker.cli.start import Start
from broker.errors import InputError, unwritable
from broker.model.duration import age_text
from broker.model.lease import BundleKind
from broker.model.names import AccountName, checked_name
from broker.model.role import Role
from broker.model.secret import Secret
from broker.paths import place

if TYPE_CHECKING:
    from broker.compose.vaults import SetUp


@click.group("vault", cls=Noun, epilog="Example: broker vault status")
def command() -> None:
    """Run a vault on this machine, or set up an existing Vault or OpenBao."""


@command.verb("start", example="broker vault start && broker vault status")
@click.option("--audit", is_flag=True, help="Also write Vault's audit log into the directory.")
def start(start: Start, audit: bool) -> None:
    """Start the embedded OpenBao, set it up, and create a login for each role. Changes nothing if it is running.

    For laptops, demos and tests only: its unseal key is stored beside its data.
    """
    vaults = start.broker.vaults
    step("starting the vault")
    address, pid = vaults.start(audit=audit)
    if not wrote_json({"success": True, "address": address, "pid": pid, "directory": str(vaults.directory)}):
        note(f"vault at {address}, process {pid}")
    note(f"its unseal key is stored beside its data in {vaults.directory}: not for production")


@command.verb("stop", example="broker vault stop")
def stop(start: Start) -> None:
    """Stop the embedded vault; keep its data."""
    ran = start.broker.vaults.stop()
    if not wrote_json({"success": True, "changed": ran}):
        note("stopped" if ran else "it does not run")


@command.verb("status", example="broker vault status -o json")
def status(start: Start) -> int:
    """Show whether the vault answers within three seconds, and whether it serves the broker.

    Exits with 3 if it does not answer, 5 if it denies access, 2 if no role can log in.
    """
    found = start.broker.vaults.status()
    if not wrote_json(found):
        words: dict[object, str] = {True: "yes", False: "no", None: "unknown"}
        shown = {name: value for name, value in asdict(found).items() if value != "" and name != "code"}
        show_details(shown | {"answers": words[found.answers], "serves": words[found.serves]})
    return CODES[found.code] if found.code else 0


@command.verb("env", example='eval "$(broker vault env)" && bao status')
def env(start: Start) -> None:
    """Print the variables that Vault's own tools need, for a shell to evaluate. No token is among them."""
    found = start.broker.vaults.environment()
    if wrote_json({f"{kind}_{name}": value for name, value in found.items() for kind in ("VAULT", "BAO")}):
        return
    for name, value in found.items():
        click.echo(f"export VAULT_{name}={shlex.quote(value)} BAO_{name}={shlex.quote(value)}")


@command.verb("setup", example="VAULT_TOKEN=… broker vault setup --dry-run")
@click.option("--dry-run", is_flag=True, help="Show the changes without making them.")
@click.option(
    "--print",
    "printed",
    type=click.Choice(["sh", "admin-policy"]),
    help="Print a script, or the policy that an administrator needs.",
)
@click.option(
    "--account", "accounts", multiple=True, metavar="NAME", help="Limit the roles to this account (repeatable)."
)
@click.option("--adopt-mount", "adopt", is_flag=True, help="Share mounts in use; --dry-run shows the effects.")
@click.option("--login-dir", default="", metavar="DIR", help="Also write each role's login to DIR/ROLE/, mode 0600.")
def setup(
    start: Start, dry_run: bool, printed: str | None, accounts: Sequence[str], adopt: bool, login_dir: str
) -> None:
    """Create mount, policies and logins in any Vault or OpenBao. Changes only what differs; removes nothing.

    Refuses mounts, policies and roles that others use. --adopt-mount shares a KV or AppRole mount with them and keeps
    its settings.

    Keeps a login in DIR that works. To replace logins, name another DIR and destroy the old secret-ids in Vault.

    Needs VAULT_TOKEN, a token with the policy that --print admin-policy prints; none of the broker's roles has it.
    --dry-run names each right that it lacks. The embedded vault needs no token.
    """
    names = [checked_name(name, "account") for name in accounts]
    if login_dir and (dry_run or printed):
        raise InputError(
            "--login-dir cannot be combined with --dry-run or --print, which change nothing",
            hint="the printed script says how to fetch logins" if printed else "give one of them",
        )
    vaults = start.broker.vaults
    if printed:
        text = vaults.script(names, adopt=adopt) if printed == "sh" else vaults.admin_policy(adopt=adopt)
        click.echo(text, nl=False)
        return
    folder = Path(login_dir) if login_dir else None
    done = vaults.set_up(names, adopt=adopt, dry_run=dry_run, login_dir=folder, write=_write_private)
    if done.logins:
        new = ", ".join(role.value for role in done.logins)
        note(f"new logins of {new} in {folder}: move each to the host of its role")
    if folder and (kept := [role.value for role in Role if role not in done.logins]):
        note(f"logins in {folder} that work are kept: {', '.join(kept)}")
    if done.lacks and wants_json():
        raise done.lacks  # standard output gets one document
    _show_plan(done, dry_run=dry_run)
    for effect in done.effects:
        note(effect)
    count = sum(change.action.value != "keep" for change in done.plan)
    note(f"{count} of {len(done.plan)} {'would change' if dry_run else 'changed'}")
    if done.lacks:
        raise done.lacks
    if not (folder or dry_run or vaults.has_logins):
        note("no role can log in from here; next: broker vault setup --login-dir roles")


@command.verb("enrol", example="broker vault enrol reporting --right acme/reporting --token-file reporting.token")
@click.argument("name", required=False, default="", metavar="[NAME]")
@rights_option
@click.option("--login-dir", default="", metavar="DIR", help="Write role_id and secret_id there, mode 0600.")
@output_file_option("--token-file", "Log in once and write the token there, mode 0600; - prints it.", secret=True)
@subject_options
@click.option("--list", "listed", is_flag=True, help="List the consumers, their rights and logins.")
@click.option("--remove", "removed", multiple=True, metavar="NAME", help="Remove a consumer (repeatable).")
def enrol(
    start: Start,
    name: str,
    rights: Sequence[tuple[AccountName, str]],
    login_dir: str,
    token_file: str,
    subject: tuple[str, str] | None,
    *,
    listed: bool,
    removed: Sequence[str],
) -> None:
    """Create a consumer: a login whose policy grants exactly the named rights, and no access to the broker's mount.

    The login is an AppRole (--login-dir, --token-file), or a subject whose JWTs the service accepts: --issuer names a
    table [issuers.NAME] of the configuration. Without a login, it changes the rights of a consumer that exists.

    A login of your own works too, if it has an entity and its policy grants `update` on the right's path.
    """
    if bool(name) + listed + bool(removed) != 1 or bool(name) != bool(rights):
        raise InputError("give NAME with --right, or --list, or --remove", hint="broker vault enrol --help")
    if listed:
        return _show_consumers(start)
    if removed:
        return _remove(start, removed)
    if subject and (login_dir or token_file):
        hint = "enrol it twice: a consumer may have both"
        raise InputError("--issuer cannot be combined with --login-dir or --token-file", hint=hint)
    require_free_output(token_file, "the token")
    require_apart(*(f"{login_dir}/{name}" for name in ("role_id", "secret_id") if login_dir), token_file)
    vaults = start.broker.vaults
    paths = [vaults.right(start.broker.account(account), application) for account, application in rights]
    if subject:
        lost = vaults.enrol_subject(name, paths, vaults.subject(*subject))
    elif login_dir or token_file:
        folder = Path(login_dir) if login_dir else None
        lost, token = vaults.enrol(name, paths, login_dir=folder, token=bool(token_file), write=_write_private)
        if token:
            _write_token(token_file, *token)
    else:
        lost = vaults.change_rights(name, paths)
    show_done(f"consumer {name} may {', '.join(paths)}", consumer=name, rights=paths)
    if lost:
        note(f"no longer: {', '.join(map(_right, lost))}")
    return None


def _write_token(file: str, token: Secret[str], seconds: int) -> None:
    ends = f"expires in {age_text(timedelta(seconds=seconds))} and is not renewed"
    if file == "-":
        click.echo(token.reveal())
        note(f"the token {ends}")
    else:
        _write_private(Path(file), token.reveal().encode())
        note(f"the token in {file} {ends}")


def _show_consumers(start: Start) -> None:
    found = start.broker.vaults.enrolled()
    if wrote_json(found):
        return
    rows = [
        (
            c.name,
            "disabled" if c.disabled else ", ".join(map(_right, c.rights)),
            ", ".join(f"{at.mount}: {at.subject}" for at in c.logins),
        )
        for c in found
    ]
    empty = "no consumer is enrolled; next: broker vault enrol NAME --right ACCOUNT/APPLICATION --token-file PATH"
    show_table(["consumer", "rights", "logins"], rows, empty=empty)


def _right(path: str) -> str:
    """Return a right to direct bundles as ACCOUNT/APPLICATION, others as their path."""
    *_, account, application, kind = path.split("/")
    return f"{account}/{application}" if kind == BundleKind.DIRECT.value else path


def _remove(start: Start, names: Sequence[str]) -> None:
    was = {name: start.broker.vaults.remove(checked_name(name, "consumer")) for name in names}
    if wrote_json({"success": True, "changed": any(was.values()), "removed": [name for name in was if was[name]]}):
        return
    for name, existed in was.items():
        note(
            f"consumer {name} is removed; its leases last until they end" if existed else f"there is no consumer {name}"
        )


def _show_plan(done: SetUp, *, dry_run: bool) -> None:
    """Show the plan, with the differences of a dry run and of items that existed before."""
    if wrote_json([{"item": c.title, "action": c.action, "difference": c.difference} for c in done.plan]):
        return
    show_table(["item", "action"], [(change.title, change.action.value) for change in done.plan])
    for change in done.plan:
        replaces = change.action.value == "update"
        if change.difference and (dry_run or replaces):
            note(f"{change.title} {'would be' if dry_run else 'is'} {'changed' if replaces else 'created'}:")
            for line in change.difference:
                note(f"  {line}")


def _write_private(path: Path, content: bytes) -> None:
    try:
        with place(path, make=True, guarded=True):
            write_output(str(path), content, mode=0o600)
    except OSError as error:
        raise unwritable(str(path), error) from None
