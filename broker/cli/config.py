"""`broker config`: settings, and the source of each."""

import errno
import os
from collections.abc import Mapping, Sequence

import click

from broker.cli.agent import outputs_of, tables_of
from broker.cli.noun import Noun
from broker.cli.output import note, show_table, wants_json, wrote_json
from broker.cli.start import Start
from broker.compose.ways import Ways
from broker.config import FREEZE_KEYS, WINDOW_KEYS
from broker.errors import InputError
from broker.model.duration import counted, duration_text
from broker.model.role import Role
from broker.network import service_address
from broker.settings import SETTINGS


@click.group("config", cls=Noun, epilog="Example: broker config show")
def command() -> None:
    """Show and check settings. A flag wins over the environment, then the file, then the default."""


@command.verb("show", example="broker config show -o json")
def show(start: Start) -> None:
    """Show every setting, how each role logs in, and the source of both. Tokens and logins are not shown."""
    config = start.config
    found = Ways(config, os.environ)
    ways = {role: found.way(role) for role in Role}
    logins = {r.value: {"method": w.method, **w.options, "source": w.source} if w else None for r, w in ways.items()}
    settings = {name: {"value": value.text, "source": value.source} for name, value in config.values.items()}
    accounts = {name: dict(own) for name, own in config.accounts.items()}
    issuers = dict(config.issuers)
    windows, freezes = ({name: dict(own) for name, own in t.items()} for t in (config.windows, config.freezes))
    rotation = {"windows": windows, "freezes": freezes}
    file = str(config.file) if config.file else None
    others = {"logins": logins, "accounts": accounts, "issuers": issuers, "rotation": rotation}
    others["bundles"] = list(config.bundles)
    if wrote_json({"file": file, "settings": settings, **others}):
        return
    show_table(
        ["setting", "value", "source", "meaning"],
        [(s.name, config.values[s.name].text, config.values[s.name].source, s.meaning) for s in SETTINGS],
    )
    show_table(
        ["role", "logs in by", "with", "source"],
        [
            (r.value, w.method, ", ".join(f"{k}={v}" for k, v in w.options.items()), w.source)
            if w
            else (r.value, "", "", "")
            for r, w in ways.items()
        ],
    )
    if accounts:
        rows = [(name, own.get("proxy", ""), own.get("proxy_login_file", "")) for name, own in accounts.items()]
        show_table(["account", "proxy", "proxy_login_file"], rows)
    if issuers:
        columns = ["issuer", "iss", "audience", "mount"]
        show_table(columns, [(name, at.issuer, at.audience, at.mount) for name, at in issuers.items()])
    for kind, keys, tables in (("window", WINDOW_KEYS, config.windows), ("freeze", FREEZE_KEYS, config.freezes)):
        if tables:
            show_table([kind, *keys], [(name, *map(own.get, keys)) for name, own in tables.items()])
    if config.bundles:
        rows = [(one.name, str(one.root), duration_text(one.wanted.ttl)) for one in tables_of(config)]
        show_table(["bundle", "directory", "ttl"], rows)
    note(f"file: {config.file or 'none: broker init writes one'}")


@command.verb("check", example="broker config check")
def check(start: Start) -> None:
    """Check names, values and files of the configuration, without a request to Vault."""
    config = start.config
    paths = {s.name: config[s.name] for s in SETTINGS if s.is_path and not s.name.endswith((".directory", ".socket"))}
    paths |= {f"accounts.{name}": own.get("proxy_login_file", "") for name, own in config.accounts.items()}
    method, _, file = config["service.auth"].partition(":")
    paths |= {"service.auth": file} if method.endswith("-file") else {}
    paths |= {f"issuers.{name}": issuer.keys_file or issuer.ca_file for name, issuer in config.issuers.items()}
    named = [f"{name}: {reason}" for name, path in paths.items() if (reason := _unreadable(path))]
    service = config["service.address"]
    files: Mapping[Role, tuple[str, ...]] = {}
    address = f"broker at {service_address(service)}" if service else ""
    if not service or config["vault.address"] or config.logins:
        where, files = start.broker.checked_logins()
        address = f"vault at {where}"
    logins = [
        f"{role.value}: {why}" for role, of_role in files.items() for path in of_role if (why := _unreadable(path))
    ]
    if named or logins:
        raise _not_all(named, logins)
    for table in tables_of(config):
        outputs_of(config, table, start.clock)
    warning = start.broker.planning.waits(start.clock()) if config.windows or config.freezes else ""
    if config["mail.smtp.host"] or config["mail.imap.host"]:
        start.broker.mail.require_usable()
    if not wrote_json({"success": True, "address": address.partition(" at ")[2], "warning": warning or None}):
        note(f"the configuration is valid; {address}")
        if warning:
            note(f"warning: {warning}")


def _not_all(named: Sequence[str], logins: Sequence[str]) -> InputError:
    """Return the error for files that cannot be read; say which, one a line."""
    hint = "check path, owner and mode"
    if logins:
        hint += "; broker vault setup --login-dir DIR writes the logins of roles"
    if wants_json():
        return InputError(f"these files cannot be read: {'; '.join([*named, *logins])}", hint=hint)
    for line in (*named, *logins):
        note(line)
    return InputError(f"{counted(len(named) + len(logins), 'file')} cannot be read", hint=hint)


def _unreadable(path: str) -> str:
    """Return path and reason if a file cannot be read, else nothing."""
    if not path or os.access(path, os.R_OK):
        return ""
    return f"{path}: {os.strerror(errno.EACCES if os.path.lexists(path) else errno.ENOENT)}"
