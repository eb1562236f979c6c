"""What is wrong with this installation, and what nobody knows yet."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from broker.cli.exits import REFUSED
from broker.cli.output import output_option, show_findings, show_json
from broker.errors import BrokerError, ConflictError, InputError, RefusedError, WaitingError
from broker.model.finding import Finding, Severity, has_errors

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.model.account import Account
    from broker.vault.policies import Role

__all__ = ["command"]

_SKEW: Final = 60  # seconds
_SEVERITY: Final = {RefusedError: Severity.ERROR, WaitingError: Severity.WARNING, ConflictError: Severity.NOTE}


@click.command("doctor", epilog="Example: broker doctor -o json")
@output_option
@click.pass_obj
def command(start: Start, output: str) -> int:
    """Check vault, logins, policies, clock, files and accounts; list what the partner has not published.

    Reports foreign entries in Vault, which no broker wrote. Changes nothing. Exit code 6 where there is an error.
    """
    findings = [*_process(), *_files(start), *_vault(start)]
    if not has_errors(findings):
        findings += [*_roles(start), *_accounts(start)]
    findings += _unknowns()
    bad = has_errors(findings)
    if output == "json":
        show_json({"success": not bad, "findings": findings})
    else:
        show_findings(findings, err=False)
        click.echo("there are errors" if bad else "no errors")
    return REFUSED if bad else 0


def _process() -> Iterator[Finding]:
    from broker.cli.hardening import harden

    granted = harden()
    if not (granted.no_core and granted.private):
        message = "the kernel does not keep this process's memory from core files and other processes of its user"
        yield Finding.warning("process.open", message, "run it where no other program runs as its user")
    if not granted.locked:
        message = "the kernel does not lock this process's memory: a secret in it may be written to swap"
        yield Finding.note("process.swap", message, "encrypt swap, or allow it: ulimit -l unlimited")


def _files(start: Start) -> Iterator[Finding]:
    config = start.config
    for role, login in config.logins.items():
        for path in (Path(text) for key, text in login.items() if key.endswith("file")):
            yield from _private(path, f"the {role} role logs in with it", required=True)
    if not config["vault.address"]:
        home = start.broker.roles.home
        for path in (home.root, home.unseal_key, *home.roles.glob("*/secret_id")):
            yield from _private(path, "the embedded vault lies open with it", required=False)
        if home.initialized.exists():
            message = f"the vault in {home.root} keeps its unseal key beside its data"
            yield Finding.note("vault.embedded", message, "for production, point VAULT_ADDR at your cluster")


def _private(path: Path, why: str, *, required: bool) -> Iterator[Finding]:
    try:
        found = path.stat()
    except OSError as error:
        if required:
            message = f"{path} cannot be read ({error.strerror}), and {why}"
            yield Finding.warning("file.missing", message, "remove the role from the configuration, or fix it")
        return
    if stat.S_IMODE(found.st_mode) & 0o077:
        message = f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):o}), and {why}"
        yield Finding.error("file.mode", message, f"chmod go= {path}")
    if found.st_uid not in (os.getuid(), 0):
        yield Finding.warning("file.owner", f"{path} belongs to another user", f"chown {os.getuid()} {path}")


def _vault(start: Start) -> Iterator[Finding]:
    from broker.vault.health import health

    try:
        settings = start.broker.roles.settings
        found = health(settings)
    except BrokerError as error:
        yield Finding.error("vault.unavailable", error.message, error.hint)
        return
    yield Finding.note("vault.answers", f"vault {found.version} at {settings.address}")
    apart = (start.broker.clock() - found.now).total_seconds() if found.now else 0
    if abs(apart) > _SKEW:
        message = f"this machine's clock is {apart:+.0f} s from Vault's: certificates and leases go by it"
        yield Finding.error("clock.skew", message, "run a time service on both")


def _roles(start: Start) -> Iterator[Finding]:
    """Judge the roles that work here, but for those whose files are missing, which `_files` told."""
    from broker.vault.health import lacking

    roles = start.broker.roles
    if not roles.here:
        hint = "broker vault setup --login-dir makes logins, broker init writes where they are"
        yield Finding.error("role.none", "no role has a way to log in to Vault", hint)
    yield from _borrowed(start)
    for role in filter(roles.may_try, roles.here):
        try:
            lacks = lacking(roles.connection(role), role)
        except BrokerError as error:
            yield Finding.error(f"role.{role.value}", f"the {role.value} role: {error.message}", error.hint)
            continue
        if lacks:
            message = f"the {role.value} role may not {', '.join(lacks)}"
            yield Finding.error(f"role.{role.value}", message, "broker vault setup --dry-run shows why")


def _borrowed(start: Start) -> Iterator[Finding]:
    """Tell of roles that speak with a token of the environment: what they do says nothing of their own logins."""
    roles = start.broker.roles
    ways = {role: way for role in roles.here if (way := roles.way(role)) and way.borrowed}
    if not ways:
        return
    role, way = next(iter(ways.items()))
    kind = "root token, which may do everything, in" if _is_root(start, role) else "token in"
    names = ", ".join(each.value for each in ways)
    message = f"the {kind} {way.source} stands in for {names}: logins of their own were not tried"
    yield Finding.warning("role.token", message, f"unset {way.source[1:]}, and name logins in broker.toml")


def _is_root(start: Start, role: Role) -> bool:
    from broker.vault.errors import field_of

    try:
        found = start.broker.roles.connection(role).ask("GET", "auth/token/lookup-self")
    except BrokerError:  # what the roles lack is told one by one
        return False
    return "root" in (field_of(found, "data", "policies") or ())


def _accounts(start: Start) -> Iterator[Finding]:
    from broker.vault.policies import Role

    roles = start.broker.roles
    if Role.AUDITOR not in roles.here or not roles.may_try(Role.AUDITOR):
        message = "accounts are not looked at: the auditor, who reads them, does not work on this host"
        yield Finding.note("account.unseen", message)
        return
    try:
        accounts = roles.accounts(Role.AUDITOR).all()
    except BrokerError as error:
        yield Finding.error("account.unreadable", error.message, error.hint)
        return
    yield from (*accounts.unread.values(), *_strange(start))
    for account in accounts.found.values():
        try:
            yield from (*_evidence(start, account), *_account(account, start.broker.clock()), *_profile(start, account))
        except BrokerError as error:
            yield Finding.error("account.unreadable", error.message, error.hint)


def _strange(start: Start) -> Iterator[Finding]:
    """Find what no broker wrote, and records and profiles that cannot be read."""
    try:
        yield from (*start.broker.unread(), *start.broker.foreign())
    except BrokerError as error:
        yield Finding.error("vault.unlisted", error.message, error.hint)


def _evidence(start: Start, account: Account) -> Iterator[Finding]:
    from broker.compose.settling import forked

    name = account.name
    if forked(start.broker.roles, account):
        number = account.outbox[0].number
        message = f"{name}: place {number} in its evidence is taken by what is not its entry, so nothing more is stored"
        yield Finding.error("account.forked", message, f"broker evidence verify {name}")
    elif account.outbox:
        message = f"{name}: {len(account.outbox)} entries of evidence are not stored yet"
        yield Finding.warning("account.outbox", message, f"any command that changes {name} stores them")


def _account(account: Account, now: datetime) -> Iterator[Finding]:
    from broker.model.obstacle import obstacles

    name = account.name
    if account.doomed_keys or account.doomed_secrets:
        message = f"{name}: secrets that nothing refers to are still to be destroyed"
        yield Finding.warning("account.doomed", message, "the rotator's next command does it")
    for found in obstacles(account, now):
        yield Finding(f"account.{found.code}", _SEVERITY[found.error], found.message, found.hint)
    current = account.current
    if current and account.certificate(current.parts.certificate).not_after <= now:
        yield Finding.error("account.expired", f"{name}: its certificate has expired", f"broker csr new {name}")


def _profile(start: Start, account: Account) -> Iterator[Finding]:
    from broker.vault.policies import Role

    try:
        start.broker.profile(account.profile, Role.AUDITOR)
    except InputError as error:
        yield Finding.error("account.profile", f"{account.name}: {error.message}", error.hint)


def _unknowns() -> Iterator[Finding]:
    from broker.partners import catalogue

    for name in catalogue.names():
        unknown = catalogue.builtin(name).unknowns
        if unknown:
            message = f"{name} has not published {', '.join(unknown)}: they are taken as unknown"
            hint = (
                f"ask the partner; before account add, copy the profile and say it: broker partner show {name} -o toml"
            )
            yield Finding.note("partner.unknown", message, hint)
