"""The directory of an embedded vault: what lies in it, and who may read it."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.delivery.atomic import write_atomically
from broker.errors import InputError, RefusedError
from broker.paths import place

__all__ = ["SETUP_ROLE", "Home", "write_private"]

SETUP_ROLE: Final = "embedded-setup"
_SOCKET_PATH: Final = 104  # bytes; Linux takes 107 and a NUL, others 103
_KEY: Final = 32


@dataclass(frozen=True, slots=True)
class Home:
    """Paths under `root`, an absolute directory. It is ours alone, mode 0700."""

    root: Path

    @property
    def socket(self) -> Path:
        """The unix socket. Whoever answers there is the server of this directory."""
        return self.root / "bao.sock"

    @property
    def data(self) -> Path:
        """What the server stores, encrypted under the unseal key."""
        return self.root / "data"

    @property
    def unseal_key(self) -> Path:
        """32 random bytes. With `data`, all that is in the vault."""
        return self.root / "unseal.key"

    @property
    def setup_secret(self) -> Path:
        """The secret-id of the login that sets the vault up."""
        return self.root / "setup.secret"

    @property
    def initialized(self) -> Path:
        """Exists once the vault has initialised itself whole."""
        return self.root / "initialized"

    @property
    def config(self) -> Path:
        """The server's configuration, written anew at every start."""
        return self.root / "bao.hcl"

    @property
    def log(self) -> Path:
        """What the server says, since its last start."""
        return self.root / "bao.log"

    @property
    def audit_log(self) -> Path:
        """The server's audit device, where it was asked for."""
        return self.root / "audit.log"

    @property
    def lock(self) -> Path:
        """Held while somebody starts or stops."""
        return self.root / "lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server itself as long as it lives."""
        return self.root / "server.lock"

    @property
    def roles(self) -> Path:
        """One directory for each role, with `role_id` and `secret_id`."""
        return self.root / "roles"

    @property
    def is_too_long(self) -> bool:
        """Whether no server can listen here, since a unix socket's path is bounded."""
        return len(os.fsencode(self.socket)) > _SOCKET_PATH

    def claim(self) -> None:
        """Make the directory; raise `InputError` where it cannot be, `RefusedError` where others may look in."""
        if self.is_too_long:
            raise InputError(f"{self.root} is too long a path for a unix socket", hint="choose a shorter directory")
        try:
            with place(self.lock, make=True) as inside:
                found = os.fstat(inside.descriptor)
        except OSError as error:
            raise InputError(f"{self.root} cannot be the vault's directory: {error.strerror}") from None
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise RefusedError(
                f"{self.root} is open to others, and the unseal key would lie in it", hint=f"chmod 700 {self.root}"
            )

    def prepare(self) -> None:
        """Make what a first start needs; raise `RefusedError` where something of a used vault is gone."""
        self._discard_half_made()
        self.data.mkdir(mode=0o700, exist_ok=True)
        for path, content in ((self.unseal_key, secrets.token_bytes(_KEY)), (self.setup_secret, _text())):
            if not path.exists():
                write_private(path, content)

    def _discard_half_made(self) -> None:
        """Begin anew where the first start was cut short: nobody has been given anything from such a vault."""
        if not self.initialized.exists():
            if self.roles.exists():
                raise RefusedError(
                    f"{self.initialized} is gone, though this vault has been in use",
                    hint="put the empty file back if you removed it; else choose another directory",
                )
            shutil.rmtree(self.data, ignore_errors=True)
            return
        for path in (self.unseal_key, self.setup_secret):
            if not path.exists():
                raise RefusedError(f"{path} is gone: without it this vault cannot be opened", hint="restore it")


def write_private(path: Path, content: bytes) -> None:
    """Put `content` at `path` whole and for its owner alone (0600), replacing what is there."""
    write_atomically(path, content, 0o600)


def _text() -> bytes:
    return secrets.token_urlsafe(_KEY).encode()
