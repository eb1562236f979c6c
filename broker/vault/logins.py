"""The broker's own logins at Vault: a class for each method, and their names."""

import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker.errors import BrokerError, DeniedError, InputError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.paths import read_file
from broker.vault.connection import Connection, TokenSource
from broker.vault.errors import Document, InvalidError, MissingError, UnclearError, UnmountedError

_RENEW_AT: Final = 2 / 3  # of the token's life


def token_source(method: str, vault: Connection, options: Mapping[str, str]) -> TokenSource:
    """Return the login `method` with its `options`; raise `InputError` for an unknown method or a missing option.

    `vault` has no token. Nothing is sent or read yet.
    """

    def file(name: str) -> Path:
        if not options.get(name):
            raise InputError(f"the login {method} needs {name}", hint="set it in broker.toml: [login] or [roles.NAME]")
        return Path(options[name])

    match method:
        case "approle":
            mount = options.get("mount") or vault.settings.mount
            return AppRoleLogin(vault, file("role_id_file"), file("secret_id_file"), mount)
        case "token" if vault.settings.token and not options.get("file"):
            return FixedToken(vault.settings.token)
        case "token":
            return FileToken(file("file"))
    raise InputError(f"there is no login method {method}", hint="use approle or token")


class FixedToken(TokenSource):
    """A token given by value. It is neither renewed nor revoked."""

    def __init__(self, token: Secret[str]) -> None:
        self._token = token

    def token(self) -> Secret[str]:
        """Return it."""
        return self._token


class FileToken(TokenSource):
    """A token in a file that another program renews, such as Vault agent's sink or `~/.vault-token`.

    Read when first needed, and again when Vault rejects it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token: Secret[str] | None = None

    def token(self) -> Secret[str]:
        """Return the file's token; raise `DeniedError` if there is no file, `InputError` if it has no token."""
        self._token = self._token or self._read()
        return self._token

    def replace(self, dead: Secret[str]) -> bool:
        """Read the file again."""
        self._token = self._read()
        return self._token != dead

    def _read(self) -> Secret[str]:
        text = content(self._path)
        if text is None:
            raise DeniedError(f"no token for Vault: {self._path} does not exist", hint="log in: bao login")
        if not text or not text.isprintable():
            raise InputError(f"no token can be read from {self._path}", hint="log in: bao login")
        return Secret(text)


@dataclass(frozen=True, slots=True)
class Grant:
    """A token from a login or a renewal. It lives from `began` for `seconds`, by any clock."""

    token: Secret[str]
    began: float
    seconds: float
    renewable: bool

    def has(self, share: float, now: float) -> bool:
        """Return whether `share` of its life is not over `now`."""
        return now < self.began + self.seconds * share


def granted(answer: Document, now: float = 0.0) -> Grant:
    """Return the token in Vault's answer to a login or a renewal; raise `UnclearError`."""
    auth: Any = answer.get("auth")
    try:
        return Grant(Secret(auth["client_token"]), now, float(auth["lease_duration"]), bool(auth["renewable"]))
    except (KeyError, TypeError, ValueError):
        raise UnclearError("Vault's answer to a login contains no token", hint="check VAULT_ADDR") from None


@dataclass(eq=False, repr=False)
class AppRoleLogin(TokenSource):
    """Log in by a role-id and a secret-id in files when a token is first needed; renew it at two thirds of its life.

    Log in again when it is gone. The thread that needs the token does it, one at a time. The files are read at every
    login, so that a new secret-id takes effect without a restart. `close` revokes the token. `vault` is a connection
    without a token.
    """

    vault: Connection
    role_id: Path
    secret_id: Path
    mount: str
    clock: Callable[[], float] = time.monotonic
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, init=False)
    _grant: Grant | None = field(default=None, init=False)

    def token(self) -> Secret[str]:
        """Return a valid token; raise `DeniedError` if Vault does not know the role or secret-id."""
        with self._one_at_a_time:
            self._grant = self._refreshed(self._grant)
            return self._grant.token

    def replace(self, dead: Secret[str]) -> bool:
        """Log in again, unless another thread has."""
        with self._one_at_a_time:
            if self._grant is None or self._grant.token == dead:
                self._grant = self._logged_in()
        return True

    def ends(self) -> float | None:
        """Return when the token ends, in Unix time; None before the first login."""
        grant = self._grant
        return time.time() + grant.began + grant.seconds - self.clock() if grant else None

    def close(self) -> None:
        """Revoke the token, if there is one, and close the connection. If Vault is away, the token soon expires."""
        with self._one_at_a_time:
            grant, self._grant = self._grant, None
        with closing(self.vault), suppress(BrokerError):
            if grant:
                self.vault.ask("POST", "auth/token/revoke-self", token=grant.token)

    def _refreshed(self, grant: Grant | None) -> Grant:
        now = self.clock()
        if grant and grant.has(_RENEW_AT, now):
            return grant
        if grant and grant.renewable and grant.has(1, now):
            with suppress(DeniedError, UnclearError):  # Vault answers 500 if a token ends while it is renewed
                answer = self.vault.ask("POST", "auth/token/renew-self", {}, token=grant.token)
                renewed = granted(answer, self.clock())
                if renewed.has(1, grant.began + grant.seconds):  # at its maximum TTL, renewal grants no more time
                    return renewed
        return self._logged_in()

    def _logged_in(self) -> Grant:
        for file in (self.role_id, self.secret_id):
            if not content(file):
                hint = f"a Vault administrator makes it: {self._setup}"
                raise DeniedError(f"{file}, which {self.vault.holder} logs in with, cannot be read", hint=hint)
        body = {"role_id": content(self.role_id), "secret_id": Secret(content(self.secret_id) or "")}
        try:
            return granted(self.vault.ask("POST", f"auth/{self.mount}/login", body), self.clock())
        except InvalidError:
            cause = f"{self.secret_id} expired or was revoked, or was made for another Vault or namespace"
            hint = f"{cause}; a Vault administrator makes a new one: {self._setup}"
        except (UnmountedError, MissingError, DeniedError):
            hint = (
                "nothing there knows such logins: are address, namespace and mount right? broker config show; "
                f"else a Vault administrator sets it up: {self._setup}"
            )
        where, approle = self.vault.settings.whereabouts, f"auth/{self.mount}, the AppRole of {self.role_id}"
        raise DeniedError(f"{where} refuses the login of {self.vault.holder} at {approle}", hint=hint)

    @property
    def _setup(self) -> str:
        """The command of an administrator that writes these files."""
        folder = self.secret_id.parent
        is_ours = self.secret_id.name == "secret_id" and folder.name in {role.value for role in Role}
        return f"broker vault setup --login-dir {shlex.quote(str(folder.parent)) if is_ours else 'roles'}"


def content(file: Path) -> str | None:
    """Return the text of `file` without blanks around it: None if there is no file, "" if it cannot be read."""
    try:
        return read_file(file).decode("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return ""
