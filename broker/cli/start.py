"""What a command starts from: the settings as typed, and the object graph once somebody asks for it."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from broker.compose import Broker, Wiring
    from broker.config import Config
    from broker.vault.evidence import VaultEvidence

__all__ = ["Start"]


class Start:
    """Handed from the root command to every other; reads nothing until it is asked."""

    def __init__(self, wiring: Wiring | None = None) -> None:
        self._file: Path | None = None
        self._flags: dict[str, str] = {}
        self._wiring = wiring

    def take(self, *, config: str | None = None, timeout: str | None = None) -> None:
        """Take what was typed; what was typed last counts."""
        if config:
            self._file = Path(config)
        if timeout:
            self._flags["vault.patience"] = timeout

    @cached_property
    def config(self) -> Config:
        """The resolved settings. The one place that reads the environment."""
        from broker.config import resolve

        defaults = {"actor": _whoami(), "embedded.directory": str(_state_directory() / "vault")}
        return resolve(flags=self._flags, environment=os.environ, file=self._file, defaults=defaults)

    @cached_property
    def broker(self) -> Broker:
        """The object graph. Its tokens are given back when the command ends."""
        from broker.cli.output import note, step
        from broker.compose import Broker

        made = Broker(self.config, os.environ, wiring=self._wiring, say=note, wait=step)
        click.get_current_context().find_root().call_on_close(partial(_undisturbed, made.close))
        return made

    @property
    def auditor_evidence(self) -> VaultEvidence:
        """The evidence, as the auditor reads it."""
        from broker.vault.policies import Role

        return self.broker.roles.evidence(Role.AUDITOR)


def _undisturbed(close: Callable[[], None]) -> None:
    from broker.signals import undisturbed

    with undisturbed():
        close()


def _state_directory() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else _home_state()) / "credential-broker"


def _home_state() -> Path:
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:  # a container's UID that no passwd file names, and no $HOME
        return Path("/var/lib")


def _whoami() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's UID that no passwd file names
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
