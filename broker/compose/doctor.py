"""Examine an installation: files, Vault, logins and policies, accounts and profiles. Nothing is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.compose.ways import signing_paths
from broker.errors import BrokerError, ConflictError, InputError, RefusedError, WaitingError
from broker.model.account import Account
from broker.model.duration import counted, duration_text
from broker.model.finding import Finding, Severity, has_errors
from broker.model.role import Role
from broker.model.todo import obstacles
from broker.partners import catalogue
from broker.vault.errors import field_of
from broker.vault.health import health, lacking

if TYPE_CHECKING:  # a cycle: `Broker` offers this
    from broker.compose.graph import Broker
    from broker.compose.roles import Roles

_SKEW: Final = timedelta(minutes=1)
_SEVERITY: Final = {RefusedError: Severity.ERROR, WaitingError: Severity.WARNING, ConflictError: Severity.NOTE}


def examined(broker: Broker) -> list[Finding]:
    """Return all findings. Roles and accounts are examined only if files and Vault are without errors."""
    findings = [*_files(broker), *_caught("vault.unavailable", _vault(broker))]
    if not has_errors(findings):
        findings += [*_roles(broker), *_caught("account.unreadable", _accounts(broker))]
    return [*findings, *_unknowns()]


def _files(broker: Broker) -> Iterator[Finding]:
    for role, login in broker.config.logins.items():
        for path in (Path(text) for key, text in login.items() if key.endswith("file")):
            yield from _private(path, f"the {role} role logs in with it", required=True)
    own = [account.get("proxy_login_file", "") for account in broker.config.accounts.values()]
    for text in filter(None, (broker.config["proxy.login_file"], *own)):
        yield from _private(Path(text), "it holds the login of a proxy", required=True)
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
            yield Finding.warning("file.missing", message, "remove it from the configuration, or fix it")
        return
    if stat.S_IMODE(found.st_mode) & 0o077:
        message = f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):o}), and {why}"
        yield Finding.error("file.mode", message, f"chmod go= {path}")
    if found.st_uid not in (os.getuid(), 0):
        yield Finding.warning("file.owner", f"{path} belongs to another user", f"chown {os.getuid()} {path}")


def _caught(code: str, findings: Iterable[Finding], prefix: str = "") -> Iterator[Finding]:
    """Yield `findings`, the last for the error that ends them."""
    try:
        yield from findings
    except BrokerError as error:
        yield Finding.error(code, prefix + error.message, error.hint)


def _vault(broker: Broker) -> Iterator[Finding]:
    settings = broker.roles.settings
    found = health(settings)
    yield Finding.note("vault.answers", f"vault {found.version} at {settings.address}")
    ahead = broker.clock() - found.now if found.now else timedelta()
    if abs(ahead) > _SKEW:
        way = "ahead of" if ahead > timedelta() else "behind"
        message = f"this machine's clock is {duration_text(abs(ahead))} {way} Vault's: certificates and leases need it"
        yield Finding.error("clock.skew", message, "run a time service on both")


def _roles(broker: Broker) -> Iterator[Finding]:
    """Check the roles that work on this host; `_files` reported those whose files are missing."""
    roles = broker.roles
    able = list(filter(roles.may_try, roles.here))
    if not able:
        yield Finding.error("role.none", "no role can log in to Vault from this host", _logins(roles))
    yield from _borrowed(broker)
    for role in able:
        yield from _caught(f"role.{role.value}", _rights(broker, role), f"the {role.value} role: ")


def _logins(roles: Roles) -> str:
    """Return the command that creates the logins of this configuration."""
    if roles.is_embedded:
        return "broker vault start creates the logins"
    files = [file for role in roles.here if (way := roles.way(role)) for file in way.files]
    setup = f"VAULT_TOKEN=… broker vault setup --login-dir {Path(files[0]).parent.parent if files else 'roles'}"
    return f"{setup} creates the logins" + ("" if files else "; broker init --out - shows how they are configured")


def _rights(broker: Broker, role: Role) -> Iterator[Finding]:
    if lacks := lacking(broker.roles.connection(role), role, signing_paths(broker.config)[role]):
        message = f"the {role.value} role lacks {'; '.join(lacks)}"
        yield Finding.error(f"role.{role.value}", message, "VAULT_TOKEN=… broker vault setup --dry-run shows why")


def _borrowed(broker: Broker) -> Iterator[Finding]:
    """Report roles that use a token of the environment: their own logins were not tested then."""
    roles = broker.roles
    ways = {role: way for role in roles.here if (way := roles.way(role)) and way.borrowed}
    for role, way in list(ways.items())[:1]:
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
    accounts = broker.roles.accounts(Role.AUDITOR).all()
    yield from accounts.unread.values()
    yield from _caught("vault.unlisted", broker.strange())
    yield from _outside(list(accounts.found.values()))
    yield from broker.notifying.findings(accounts.found.values())
    for account in accounts.found.values():
        yield from _caught("account.unreadable", _account(broker, account))


def _outside(accounts: Sequence[Account]) -> Iterator[Finding]:
    """Report each account whose current key others have too: another account, or somebody outside."""
    for account in accounts:
        request = next((r for r in account.requests if account.current and r.key == account.current.parts.key), None)
        if request is None:
            continue
        sharing = [a.name for a in accounts if a is not account and a.has_key(request.spki)]
        hint = f"broker csr new {account.name} starts a renewal with a key of its own"
        if sharing:
            message = f"{account.name}: {', '.join(sharing)} has the same key"
            yield Finding.warning("account.shared-key", message, hint)
        if request.imported:
            held = f", by {', '.join(request.held_by)}" if request.held_by else ""
            message = f"{account.name}: its key was imported, and is known outside{held}"
            yield Finding.note("account.known-outside", message, hint)


def _evidence(broker: Broker, account: Account) -> Iterator[Finding]:
    name = account.name
    if broker.forked(account):
        number = account.outbox[0].number
        message = f"{name}: evidence entry {number} is not the account's own, so no more entries can be stored"
        yield Finding.error("account.forked", message, f"broker evidence verify {name}")
    elif account.outbox:
        message = f"{name}: {counted(len(account.outbox), 'entry', 'entries')} of evidence not stored yet"
        yield Finding.warning("account.outbox", message, f"any command that changes {name} stores them")


def _account(broker: Broker, account: Account) -> Iterator[Finding]:
    name, now, current = account.name, broker.clock(), None if account.removed else account.current
    yield from _evidence(broker, account)
    if account.doomed_keys or account.doomed_secrets:
        message = f"{name}: secrets that nothing refers to are not destroyed yet"
        yield Finding.warning("account.doomed", message, "the rotator's next command destroys them")
    for found in obstacles(account, now):
        yield Finding(f"account.{found.code}", _SEVERITY[found.error], found.message, found.hint)
    end = account.certificate(current.parts.certificate).not_after if current else now
    if current and end <= now:
        yield Finding.error(
            "account.expired", f"{name}: its certificate expired on {end:%F %TZ}", f"broker status {name}"
        )
    if account.suspended:
        message = f"{name}: suspended since {account.suspended.at:%F %TZ} ({account.suspended.reason})"
        yield Finding.warning("account.suspended", message, f"broker account resume {name}")
    try:
        broker.profile(account.profile, Role.AUDITOR)
    except InputError as error:
        yield Finding.error("account.profile", f"{name}: {error.message}", error.hint)


def _unknowns() -> Iterator[Finding]:
    for name in catalogue.names():
        unknown = catalogue.builtin(name).unknowns
        if unknown:
            message = f"{name} has not published {', '.join(unknown)}: defaults are used"
            hint = "ask the partner; to set the values, copy the profile before account add: "
            yield Finding.note("partner.unknown", message, f"{hint}broker partner show {name} -o toml")
