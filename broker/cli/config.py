"""Where each setting comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.output import note, output_option, show_json, show_table
from broker.config import SETTINGS

if TYPE_CHECKING:
    from broker.cli.start import Start

__all__ = ["command"]


@click.group("config")
def command() -> None:
    """Show and check settings. A flag wins over the environment, that over the file, that over the default."""


@command.command("show", epilog="Example: broker config show -o json")
@output_option
@click.pass_obj
def show(start: Start, output: str) -> None:
    """Show every setting, and where its value comes from. Tokens are never shown."""
    config = start.config
    if output == "json":
        show_json(
            {
                "file": str(config.file) if config.file else None,
                "settings": {n: {"value": v.text, "source": v.source} for n, v in config.values.items()},
                "logins": {role: dict(login) for role, login in config.logins.items()},
            }
        )
        return
    show_table(
        ["setting", "value", "source", "meaning"],
        [(s.name, config.values[s.name].text, config.values[s.name].source, s.meaning) for s in SETTINGS],
    )
    if config.logins:
        show_table(
            ["role", "logs in by", "with"],
            [
                (role, login.get("method", "approle"), ", ".join(f"{k}={v}" for k, v in login.items() if k != "method"))
                for role, login in config.logins.items()
            ],
        )
    note(f"file: {config.file or 'none; broker init writes one'}")


@command.command("check", epilog="Example: broker config check")
@click.pass_obj
def check(start: Start) -> None:
    """Check the configuration without asking Vault: every name, every value, every file it names."""
    from broker.errors import InputError
    from broker.vault.policies import Role

    config = start.config
    address = start.broker.roles.settings.address
    missing = [
        f"{setting.name}: {config[setting.name]}"
        for setting in SETTINGS
        if setting.is_path
        and setting.name.startswith("vault.")
        and config[setting.name]
        and not _readable(config[setting.name])
    ] + [
        f"{role}: {path}"
        for role, login in config.logins.items()
        for key, path in login.items()
        if key.endswith("file") and not _readable(path)
    ]
    if missing:
        raise InputError(f"these files cannot be read: {'; '.join(missing)}", hint="who runs this, and who owns them?")
    start.broker.roles.connection(Role.AUDITOR)
    note(f"the configuration is good; vault at {address}")


def _readable(path: str) -> bool:
    import os

    return os.access(path, os.R_OK)
