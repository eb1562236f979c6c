"""Examine an installation: files, Vault, logins and policies, accounts and profiles. Nothing is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerError, ConflictError, InputError, RefusedError, WaitingError
from broker.model.account import Account
from broker.model.finding import Finding, Severity, has_errors
from broker.model.obstacle import obstacles
from broker.model.role import Role
from broker.partners import catalogue
from broker.vault.errors import field_of
from broker.vault.health import health, lacking

if TYPE_CHECKING:  # a cycle: `Broker` offers this
    from broker.compose.graph import Broker

_SKEW: Final = 60  # seconds
_SEVERITY: Final = {RefusedError: Severity.ERROR, WaitingError: Severity.WARNING, ConflictError: Severity.NOTE}


def examined(broker: Broker) -> list[Finding]:
    """Return all findings. Roles and accounts are examined only if files and Vault are without errors."""
    findings = [*_files(broker), *_vault(broker)]
    if not has_errors(findings):
        findings += [*_roles(broker), *_accounts(broker)]
    return [*findings, *_unknowns()]


def _files(broker: Broker) -> Iterator[Finding]:
    for role, login in broker.config.logins.items():
        for path in (Path(text) for key, text in login.items() if key.endswith("file")):
            yield from _private(path, f"the {role} role logs in with it", required=True)
    if broker.config["vault.address"]:
        return
    home = broker.roles.home
    for path in (home.root, home.unseal_key, *home.roles.glob("*/secret_id")):
        yield from _private(path, "it gives access to the embedded vault", required=False)
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


def _vault(broker: Broker) -> Iterator[Finding]:
    try:
        settings = broker.roles.settings
        found = health(settings)
    except BrokerError as error:
        yield Finding.error("vault.unavailable", error.message, error.hint)
        return
    yield Finding.note("vault.answers", f"vault {found.version} at {settings.address}")
    apart = (broker.clock() - found.now).total_seconds() if found.now else 0
    if abs(apart) > _SKEW:
        message = f"this machine's clock is {apart:+.0f} s from Vault's: certificates and leases depend on it"
        yield Finding.error("clock.skew", message, "run a time service on both")


def _roles(broker: Broker) -> Iterator[Finding]:
    """Check the roles that work on this host; `_files` reported those whose files are missing."""
    roles = broker.roles
    if not roles.here:
        hint = "broker vault setup --login-dir creates logins, broker init writes a configuration that names them"
        yield Finding.error("role.none", "no role has a way to log in to Vault", hint)
    yield from _borrowed(broker)
    for role in filter(roles.may_try, roles.here):
        try:
            lacks = lacking(roles.connection(role), role)
        except BrokerError as error:
            yield Finding.error(f"role.{role.value}", f"the {role.value} role: {error.message}", error.hint)
            continue
        if lacks:
            message = f"the {role.value} role may not {', '.join(lacks)}"
            yield Finding.error(f"role.{role.value}", message, "broker vault setup --dry-run shows why")


def _borrowed(broker: Broker) -> Iterator[Finding]:
    """Report roles that use a token of the environment: their own logins were not tested then."""
    roles = broker.roles
    ways = {role: way for role in roles.here if (way := roles.way(role)) and way.borrowed}
    if not ways:
        return
    role, way = next(iter(ways.items()))
    kind = "root token, which may do everything, in" if _is_root(broker, role) else "token in"
    names = ", ".join(each.value for each in ways)
    message = f"the {kind} {way.source} is used for {names}: their own logins were not tested"
    yield Finding.warning("role.token", message, f"unset {way.source[1:]}, and configure logins in broker.toml")


def _is_root(broker: Broker, role: Role) -> bool:
    try:
        found = broker.roles.connection(role).ask("GET", "auth/token/lookup-self")
    except BrokerError:  # `_roles` reports missing rights one by one
        return False
    return "root" in (field_of(found, "data", "policies") or ())


def _accounts(broker: Broker) -> Iterator[Finding]:
    if not broker.roles.may_try(Role.AUDITOR):
        message = "accounts are not examined: the auditor role, which reads them, does not work on this host"
        yield Finding.note("account.unseen", message)
        return
    try:
        accounts = broker.roles.accounts(Role.AUDITOR).all()
    except BrokerError as error:
        yield Finding.error("account.unreadable", error.message, error.hint)
        return
    yield from (*accounts.unread.values(), *_unlisted(broker))
    yield from _outside(list(accounts.found.values()))
    for account in accounts.found.values():
        try:
            yield from (*_evidence(broker, account), *_account(account, broker.clock()), *_profile(broker, account))
        except BrokerError as error:
            yield Finding.error("account.unreadable", error.message, error.hint)


def _outside(accounts: Sequence[Account]) -> Iterator[Finding]:
    """Report each account whose current key others have too: another account, or somebody outside."""
    for account in accounts:
        request = next((r for r in account.requests if account.current and r.key == account.current.parts.key), None)
        if request is None:
            continue
        sharing = [a.name for a in accounts if a is not account and a.request_of(request.spki)]
        hint = f"broker csr new {account.name} starts a renewal with a key of its own"
        if sharing:
            message = f"{account.name}: {', '.join(sharing)} has the same key"
            yield Finding.warning("account.shared-key", message, hint)
        if request.imported:
            held = f", by {', '.join(request.held_by)}" if request.held_by else ""
            yield Finding.note(
                "account.known-outside", f"{account.name}: its key was imported, and is known outside{held}", hint
            )


def _unlisted(broker: Broker) -> Iterator[Finding]:
    """Report foreign entries, and records and profiles that cannot be read."""
    try:
        yield from (*broker.unread(), *broker.foreign())
    except BrokerError as error:
        yield Finding.error("vault.unlisted", error.message, error.hint)


def _evidence(broker: Broker, account: Account) -> Iterator[Finding]:
    name = account.name
    if broker.forked(account):
        number = account.outbox[0].number
        message = f"{name}: evidence entry {number} is not the account's own, so no more entries can be stored"
        yield Finding.error("account.forked", message, f"broker evidence verify {name}")
    elif account.outbox:
        message = f"{name}: {len(account.outbox)} entries of evidence are not stored yet"
        yield Finding.warning("account.outbox", message, f"any command that changes {name} stores them")


def _account(account: Account, now: datetime) -> Iterator[Finding]:
    name = account.name
    if account.doomed_keys or account.doomed_secrets:
        message = f"{name}: secrets that nothing refers to are not destroyed yet"
        yield Finding.warning("account.doomed", message, "the rotator's next command destroys them")
    for found in obstacles(account, now):
        yield Finding(f"account.{found.code}", _SEVERITY[found.error], found.message, found.hint)
    current = account.current
    if current and account.certificate(current.parts.certificate).not_after <= now:
        yield Finding.error("account.expired", f"{name}: its certificate has expired", f"broker csr new {name}")


def _profile(broker: Broker, account: Account) -> Iterator[Finding]:
    try:
        broker.profile(account.profile, Role.AUDITOR)
    except InputError as error:
        yield Finding.error("account.profile", f"{account.name}: {error.message}", error.hint)


def _unknowns() -> Iterator[Finding]:
    for name in catalogue.names():
        unknown = catalogue.builtin(name).unknowns
        if unknown:
            message = f"{name} has not published {', '.join(unknown)}: defaults are used"
            hint = (
                "ask the partner; to set the values, copy the profile before account add: "
                f"broker partner show {name} -o toml"
            )
            yield Finding.note("partner.unknown", message, hint)
