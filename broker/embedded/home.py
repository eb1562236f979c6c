"""Directory of an embedded vault: its files and their permissions."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.errors import InputError, RefusedError
from broker.paths import place, write_atomically

__all__ = ["SETUP_ROLE", "Home", "write_private"]

SETUP_ROLE: Final = "embedded-setup"
_SOCKET_PATH: Final = 104  # bytes; Linux takes 107 and a NUL, others 103
_KEY: Final = 32


@dataclass(frozen=True, slots=True)
class Home:
    """Paths under `root`, an absolute directory of our user, mode 0700."""

    root: Path

    @property
    def socket(self) -> Path:
        """The unix socket of the server of this directory."""
        return self.root / "bao.sock"

    @property
    def data(self) -> Path:
        """The server's storage, encrypted under the unseal key."""
        return self.root / "data"

    @property
    def unseal_key(self) -> Path:
        """32 random bytes, which decrypt `data`."""
        return self.root / "unseal.key"

    @property
    def setup_secret(self) -> Path:
        """The secret-id of the login that sets the vault up."""
        return self.root / "setup.secret"

    @property
    def initialized(self) -> Path:
        """Exists after the vault has initialised itself completely."""
        return self.root / "initialized"

    @property
    def config(self) -> Path:
        """The server's configuration, written at every start."""
        return self.root / "bao.hcl"

    @property
    def log(self) -> Path:
        """The server's log since its last start."""
        return self.root / "bao.log"

    @property
    def audit_log(self) -> Path:
        """The server's audit log, if requested."""
        return self.root / "audit.log"

    @property
    def lock(self) -> Path:
        """Held by a process that starts or stops the server."""
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
        """Whether the path is too long for a unix socket."""
        return len(os.fsencode(self.socket)) > _SOCKET_PATH

    def claim(self) -> None:
        """Make the directory; raise `InputError` if that fails, `RefusedError` if others may look into it."""
        if self.is_too_long:
            raise InputError(f"{self.root} is too long a path for a unix socket", hint="choose a shorter directory")
        try:
            with place(self.lock, make=True) as inside:
                found = os.fstat(inside.descriptor)
        except OSError as error:
            raise InputError(f"{self.root} cannot be the vault's directory: {error.strerror}") from None
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise RefusedError(
                f"{self.root} is open to others; refusing to put the unseal key into it", hint=f"chmod 700 {self.root}"
            )

    def prepare(self) -> None:
        """Make the files for a first start; raise `RefusedError` if a file of a used vault is gone."""
        self._discard_half_made()
        self.data.mkdir(mode=0o700, exist_ok=True)
        for path, content in ((self.unseal_key, secrets.token_bytes(_KEY)), (self.setup_secret, _text())):
            if not path.exists():
                write_private(path, content)

    def _discard_half_made(self) -> None:
        """Remove the data of an interrupted first start: nothing of it was ever used."""
        if not self.initialized.exists():
            if self.roles.exists():
                raise RefusedError(
                    f"{self.initialized} is gone, though this vault has been in use",
                    hint="put the empty file back if you removed it; otherwise choose another directory",
                )
            shutil.rmtree(self.data, ignore_errors=True)
            return
        for path in (self.unseal_key, self.setup_secret):
            if not path.exists():
                raise RefusedError(f"{path} is gone: without it this vault cannot be opened", hint="restore it")


def write_private(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, for its owner only (0600)."""
    write_atomically(path, content, 0o600)


def _text() -> bytes:
    return secrets.token_urlsafe(_KEY).encode()
