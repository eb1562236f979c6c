"""`broker config`: settings, and the source of each."""

from __future__ import annotations

import os

import click

from broker.cli.output import note, output_option, show_json, show_table
from broker.cli.start import Start
from broker.compose.ways import Way, Ways
from broker.config import SETTINGS
from broker.errors import InputError
from broker.model.role import Role


@click.group("config", epilog="Example: broker config show")
def command() -> None:
    """Show and check settings. A flag wins over the environment, then the file, then the default."""


@command.command("show", epilog="Example: broker config show -o json")
@output_option
@click.pass_obj
def show(start: Start, output: str) -> None:
    """Show every setting, how each role logs in, and the source of both. Tokens are not shown."""
    config = start.config
    found = Ways(config, os.environ)
    ways = {role: found.way(role) for role in Role}
    if output == "json":
        show_json(
            {
                "file": str(config.file) if config.file else None,
                "settings": {n: {"value": v.text, "source": v.source} for n, v in config.values.items()},
                "logins": {role.value: _described(way) if way else None for role, way in ways.items()},
            }
        )
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


@command.command("check", epilog="Example: broker config check")
@click.pass_obj
def check(start: Start) -> None:
    """Check names, values and files of the configuration, without a request to Vault."""
    config = start.config
    paths = {s.name: config[s.name] for s in SETTINGS if s.is_path and not s.name.endswith(".directory")}
    paths |= {f"accounts.{name}": own.get("proxy_login_file", "") for name, own in config.accounts.items()}
    named = [f"{name}: {path}" for name, path in paths.items() if not _is_readable(path)]
    address, files = start.broker.checked_logins()
    named += [f"{role.value}: {path}" for role, paths in files.items() for path in paths if not _is_readable(path)]
    if named:
        raise InputError(f"these files cannot be read: {'; '.join(named)}", hint="check their owner and mode")
    note(f"the configuration is valid; vault at {address}")


def _described(way: Way) -> dict[str, str]:
    return {"method": way.method, **way.options, "source": way.source}


def _is_readable(path: str) -> bool:
    return not path or os.access(path, os.R_OK)
