"""Start of every command: the root's options, and the object graph, which is imported when it is first used."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from broker.cli.hardening import harden
from broker.cli.output import note, step
from broker.config import Config, resolve
from broker.errors import RefusedError
from broker.model.clock import Clock, system_clock
from broker.signals import undisturbed
from broker.telemetry import log

if TYPE_CHECKING:
    from broker.compose.graph import Broker, Wiring


_FLAGS: Final = {"timeout": "vault.patience", "tls_pki": "serve.tls_pki", "tls_name": "serve.tls_name"}


class Start:
    """Passed from the root command to every other; reads nothing until it is used."""

    def __init__(self, wiring: Wiring | None = None) -> None:
        self._file: Path | None = None
        self._flags: dict[str, str] = {}
        self._suggested: dict[str, str] = {}
        self._wiring = wiring

    def take(self, name: str, value: str | int) -> None:
        """Take an option of the root; a later value replaces an earlier one."""
        if name == "config":
            self._file = Path(str(value))
        elif name in _FLAGS:
            self._flags[_FLAGS[name]] = str(value)
        else:
            level = value if name == "log_level" else "info" if value == 1 else "debug"
            self._flags["log.level"] = str(level)
            log.to_stderr(log.level_of(str(level)))

    def suggest(self, name: str, value: str) -> None:
        """Take a default that this command has for a setting, before the settings are resolved."""
        self._suggested[name] = value

    @cached_property
    def config(self) -> Config:
        """The resolved settings. Only this reads the environment."""
        defaults = {"actor": _actor(), "embedded.directory": str(_state_directory() / "vault"), **self._suggested}
        found = resolve(flags=self._flags, environment=os.environ, file=self._file, defaults=defaults)
        level, form = log.level_of(found["log.level"]), log.form_of(found["log.format"])
        if found.values["log.level"].source != "default" or "log.level" in self._suggested:
            from broker.telemetry.rendering import configure  # only then: it takes time

            configure(level, form)
        return found

    def read_again(self) -> Config:
        """Return the settings as they are now; raise `InputError`, and keep those from before."""
        before = self.__dict__.pop("config", None)
        try:
            return self.config
        except BaseException:
            if before:
                self.__dict__["config"] = before
            raise

    @property
    def clock(self) -> Clock:
        """The clock for dates that are shown and waited for. It needs no Vault, and so none of its libraries."""
        return self._wiring.clock if self._wiring else system_clock

    @cached_property
    def broker(self) -> Broker:
        """The object graph. Its tokens are given back when the command ends."""
        from broker.compose.graph import Broker  # the second of two doors: commands without Vault load no Vault library

        log.bind(command=click.get_current_context().command_path)
        made = Broker(self.config, os.environ, wiring=self._wiring, say=note, wait=step)
        click.get_current_context().find_root().call_on_close(undisturbed()(made.close))
        return made

    @cached_property
    def now(self) -> datetime:
        """The time for a command that only shows; warns if it differs from Vault's."""
        try:
            return self.broker.true_clock()
        except RefusedError as error:
            note(f"warning: {error.message}, so what is shown may be wrong; {error.hint}")
            return self.broker.clock()


def begin(wiring: Wiring | None) -> Start:
    """Harden the process and return the start of a command. `--help` and `--version` do not come this far."""
    harden()  # before any secret is read
    log.reset()
    log.bind(request=os.urandom(8).hex())
    return Start(wiring)


def _state_directory() -> Path:
    try:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:  # a container's UID without a passwd entry, and no $HOME
        base = "/var/lib"
    return Path(base) / "credential-broker"


def _actor() -> str:
    import getpass  # only for changes: start-up counts

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's UID without a passwd entry
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
