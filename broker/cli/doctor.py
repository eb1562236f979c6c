"""What is wrong with this installation, and what nobody knows yet."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from broker.cli.exits import REFUSED
from broker.cli.output import output_option, show_findings, show_json
from broker.errors import BrokerError
from broker.model.finding import Finding, Severity

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.model.account import Account
    from broker.vault.policies import Role

__all__ = ["command"]

_SKEW: Final = 60  # seconds


@click.command("doctor", epilog="Example: broker doctor -o json")
@output_option
@click.pass_obj
def command(start: Start, output: str) -> int:
    """Check vault, logins, policies, clock, files and accounts; list what the partner has not published.

    Changes nothing. Exit code 6 where there is an error.
    """
    findings = [*_files(start), *_vault(start)]
    if not any(f.severity is Severity.ERROR for f in findings):
        findings += [*_policies(start), *_accounts(start)]
    findings += _unknowns()
    bad = any(f.severity is Severity.ERROR for f in findings)
    if output == "json":
        show_json({"success": not bad, "findings": findings})
    else:
        show_findings(findings, err=False)
        click.echo("there are errors" if bad else "no errors")
    return REFUSED if bad else 0


def _files(start: Start) -> Iterator[Finding]:
    config = start.config
    for role, login in config.logins.items():
        for path in (Path(text) for key, text in login.items() if key.endswith("file")):
            yield from _private(path, f"the {role} role logs in with it", required=True)
    home = start.broker.roles.home
    if not config["vault.address"]:
        for path in (home.root, home.unseal_key, *home.roles.glob("*/secret_id")):
            yield from _private(path, "the embedded vault lies open with it", required=False)
        if home.initialized.exists():
            sentence = f"the vault in {home.root} keeps its unseal key beside its data"
            yield Finding("vault.embedded", Severity.NOTE, sentence, "for production, point VAULT_ADDR at your cluster")


def _private(path: Path, why: str, *, required: bool) -> Iterator[Finding]:
    try:
        found = path.stat()
    except OSError as error:
        if required:
            sentence = f"{path} cannot be read ({error.strerror}), and {why}"
            yield Finding(
                "file.missing", Severity.WARNING, sentence, "remove the role from the configuration, or mend it"
            )
        return
    if stat.S_IMODE(found.st_mode) & 0o077:
        sentence = f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):o}), and {why}"
        yield Finding("file.mode", Severity.ERROR, sentence, f"chmod go= {path}")
    if found.st_uid not in (os.getuid(), 0):
        yield Finding("file.owner", Severity.WARNING, f"{path} belongs to another user", f"chown {os.getuid()} {path}")


def _vault(start: Start) -> Iterator[Finding]:
    from broker.vault.connection import Connection

    try:
        settings = start.broker.roles.settings
        health = Connection(settings).ask("GET", "sys/health")
    except BrokerError as error:
        yield Finding("vault.unavailable", Severity.ERROR, error.what, error.hint)
        return
    yield Finding("vault.answers", Severity.NOTE, f"vault {health.get('version', '?')} at {settings.address}")
    yield from _clock(start, health.get("server_time_utc"))


def _clock(start: Start, theirs: object) -> Iterator[Finding]:
    if not isinstance(theirs, int):
        return
    apart = (start.broker.clock() - datetime.fromtimestamp(theirs, UTC)).total_seconds()
    if abs(apart) > _SKEW:
        sentence = f"this machine's clock is {apart:+.0f} s from Vault's: certificates and leases go by it"
        yield Finding("clock.skew", Severity.ERROR, sentence, "run a time service on both")


def _policies(start: Start) -> Iterator[Finding]:
    from broker.vault.policies import Role

    for role in Role:
        try:
            missing = _missing(start, role)
        except BrokerError as error:
            yield Finding(f"role.{role.value}", Severity.WARNING, f"the {role.value} role: {error.what}", error.hint)
            continue
        if missing:
            sentence = f"the {role.value} role may not {', '.join(missing)}"
            yield Finding(f"role.{role.value}", Severity.ERROR, sentence, "broker vault setup --dry-run shows why")


_NEEDED: Final = {
    "server": (("data/accounts/x", "read"), ("data/keys/x/1", "read"), ("data/evidence/issued/x/1", "create")),
    "rotator": (("data/accounts/x", "update"), ("data/keys/x/1", "create"), ("destroy/keys/x/1", "update")),
    "canary": (("data/accounts/x", "update"), ("data/keys/x/1", "read"), ("data/passwords/x/1", "read")),
    "operator": (("data/accounts/x", "create"), ("data/passwords/x/1", "create")),
    "auditor": (("data/accounts/x", "read"), ("metadata/evidence/issued/", "list")),
    "anchor": (("data/evidence/heads/1", "create"),),
}


def _missing(start: Start, role: Role) -> list[str]:
    """Return what `role` needs and may not do, as Vault itself answers."""
    vault = start.broker.roles.connection(role)
    paths = [f"{vault.settings.mount}/{path}" for path, _ in _NEEDED.get(role.value, ())]
    if not paths:
        return []
    answer = vault.ask("POST", "sys/capabilities-self", {"paths": paths})
    listed = answer.get("data") or answer
    return [
        f"{right} {path}"
        for path, right in _NEEDED[role.value]
        if not {right, "root"} & set(listed.get(f"{vault.settings.mount}/{path}") or ())
    ]


def _accounts(start: Start) -> Iterator[Finding]:
    try:
        accounts = list(start.broker.all_accounts())
    except BrokerError as error:
        yield Finding("account.unreadable", Severity.ERROR, error.what, error.hint)
        return
    for account in accounts:
        yield from _account(account, start.broker.clock())


def _account(account: Account, now: datetime) -> Iterator[Finding]:
    name = account.name
    if account.outbox:
        sentence = f"{name}: {len(account.outbox)} entries of evidence are not stored yet"
        yield Finding("account.outbox", Severity.WARNING, sentence, f"any command that changes {name} stores them")
    if account.doomed_keys or account.doomed_passwords:
        sentence = f"{name}: secrets that nothing refers to are still to be destroyed"
        yield Finding("account.doomed", Severity.WARNING, sentence, "the rotator's next command does it")
    if account.breaker:
        sentence = f"{name}: the partner rejected the login on {account.breaker.at:%F}"
        yield Finding("account.breaker", Severity.ERROR, sentence, f"broker password set {name}")
    current = account.current
    if current and account.certificate(current.parts.certificate).not_after <= now:
        yield Finding(
            "account.expired", Severity.ERROR, f"{name}: its certificate has expired", f"broker csr new {name}"
        )


def _unknowns() -> Iterator[Finding]:
    from broker.partners import catalogue

    for name in catalogue.names():
        unknown = catalogue.builtin(name).unknowns
        if unknown:
            sentence = f"{name} has not published {', '.join(unknown)}: they stay unknown until you set them"
            yield Finding(
                "partner.unknown", Severity.NOTE, sentence, "ask the partner; a profile of your own can say it"
            )
