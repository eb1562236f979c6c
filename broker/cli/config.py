"""Where each setting comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.output import note, output_option, show_json, show_table
from broker.config import SETTINGS

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.compose.roles import Way

__all__ = ["command"]


@click.group("config", epilog="Example: broker config show")
def command() -> None:
    """Show and check settings. A flag wins over the environment, that over the file, that over the default."""


@command.command("show", epilog="Example: broker config show -o json")
@output_option
@click.pass_obj
def show(start: Start, output: str) -> None:
    """Show every setting and how each role logs in, and where that comes from. Tokens are never shown."""
    from broker.vault.policies import Role

    config = start.config
    ways = {role: start.broker.roles.way(role) for role in Role}
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
    """Check the configuration without asking Vault: every name, every value, every file it names."""
    from broker.errors import InputError
    from broker.vault.policies import Role

    config, roles = start.config, start.broker.roles
    address = roles.settings.address
    named = [
        f"{setting.name}: {config[setting.name]}"
        for setting in SETTINGS
        if setting.is_path and setting.name.startswith("vault.") and not _is_readable(config[setting.name])
    ]
    for role in roles.here or (Role.AUDITOR,):
        roles.connection(role)  # whether its login can be made of what is said
        way = roles.way(role)
        named += [f"{role.value}: {path}" for path in (way.files if way else ()) if not _is_readable(path)]
    if named:
        raise InputError(f"these files cannot be read: {'; '.join(named)}", hint="who runs this, and who owns them?")
    note(f"the configuration is good; vault at {address}")


def _described(way: Way) -> dict[str, str]:
    return {"method": way.method, **way.options, "source": way.source}


def _is_readable(path: str) -> bool:
    import os

    return not path or os.access(path, os.R_OK)
