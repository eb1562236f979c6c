"""Directory of an embedded vault: its files and their permissions."""

import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Final

from broker.errors import InputError, RefusedError
from broker.paths import place, write_atomically

SETUP_ROLE: Final = "embedded-setup"
_SOCKET_PATH: Final = 104  # bytes; Linux takes 107 and a NUL, others 103


class Home:
    """Paths under `root`, an absolute directory of our user, mode 0700."""

    def __init__(self, root: Path) -> None:
        self.root: Final = root
        self.socket: Final = root / "bao.sock"  # the server's unix socket
        self.data: Final = root / "data"  # the server's storage, encrypted under the unseal key
        self.unseal_key: Final = root / "unseal.key"  # 32 random bytes, which decrypt `data`
        self.setup_secret: Final = root / "setup.secret"  # the secret-id of the login that sets the vault up
        self.initialized: Final = root / "initialized"  # exists after the vault has initialised itself completely
        self.config: Final = root / "bao.hcl"  # the server's configuration, written at every start
        self.log: Final = root / "bao.log"  # the server's log since its last start
        self.audit_log: Final = root / "audit.log"  # the server's audit log, if requested
        self.lock: Final = root / "lock"  # held by a process that starts or stops the server
        self.server_lock: Final = root / "server.lock"  # held by the server itself as long as it lives
        self.roles: Final = root / "roles"  # one directory for each role, with `role_id` and `secret_id`

    @property
    def is_too_long(self) -> bool:
        """Return whether the path is too long for a unix socket."""
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
        if self.initialized.exists():
            for path in (self.unseal_key, self.setup_secret):
                if not path.exists():
                    raise RefusedError(f"{path} is gone: without it this vault cannot be opened", hint="restore it")
            return
        if self.roles.exists():
            raise RefusedError(
                f"{self.initialized} is gone, though this vault has been in use",
                hint="put the empty file back if you removed it; otherwise choose another directory",
            )
        shutil.rmtree(self.data, ignore_errors=True)  # of an interrupted first start: nothing of it was ever used
        self.data.mkdir(mode=0o700, exist_ok=True)
        write_private(self.unseal_key, secrets.token_bytes(32))
        write_private(self.setup_secret, secrets.token_urlsafe(32).encode())


def write_private(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, for its owner only (0600)."""
    write_atomically(path, content, 0o600)
