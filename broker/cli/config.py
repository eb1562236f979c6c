"""`broker config`: settings, and the source of each."""

import os

import click

from broker.cli.noun import Noun
from broker.cli.output import note, show_table, wrote_json
from broker.cli.start import Start
from broker.compose.ways import Ways
from broker.config import SETTINGS
from broker.errors import InputError
from broker.model.role import Role


@click.group("config", cls=Noun, epilog="Example: broker config show")
def command() -> None:
    """Show and check settings. A flag wins over the environment, then the file, then the default."""


@command.verb("show", example="broker config show -o json")
def show(start: Start) -> None:
    """Show every setting, how each role logs in, and the source of both. Tokens are not shown."""
    config = start.config
    found = Ways(config, os.environ)
    ways = {role: found.way(role) for role in Role}
    logins = {r.value: {"method": w.method, **w.options, "source": w.source} if w else None for r, w in ways.items()}
    settings = {name: {"value": value.text, "source": value.source} for name, value in config.values.items()}
    if wrote_json({"file": str(config.file) if config.file else None, "settings": settings, "logins": logins}):
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
    note(f"file: {config.file or 'none; broker init writes one'}")


@command.verb("check", example="broker config check")
def check(start: Start) -> None:
    """Check names, values and files of the configuration, without a request to Vault."""
    named = [
        f"{setting.name}: {start.config[setting.name]}"
        for setting in SETTINGS
        if setting.is_path and setting.name.startswith("vault.") and not _is_readable(start.config[setting.name])
    ]
    address, files = start.broker.checked_logins()
    named += [f"{role.value}: {path}" for role, paths in files.items() for path in paths if not _is_readable(path)]
    if named:
        raise InputError(f"these files cannot be read: {'; '.join(named)}", hint="check their owner and mode")
    if not wrote_json({"success": True, "address": address}):
        note(f"the configuration is valid; vault at {address}")


def _is_readable(path: str) -> bool:
    return not path or os.access(path, os.R_OK)
