"""The broker's own logins at Vault: a class for each method, and their names."""

import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError, DeniedError, InputError
from broker.model.role import Role
from broker.model.secret import Secret
from broker.paths import read_file
from broker.vault.connection import Connection
from broker.vault.errors import Document, InvalidError, MissingError, UnclearError, UnmountedError
from broker.vault.tokens import TokenSource

METHODS: Final = ("approle", "jwt", "kubernetes", "cert", "token")
_MOUNTS: Final = {"jwt": "jwt", "kubernetes": "kubernetes", "cert": "cert"}  # else the broker's own
_POD_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  # where Kubernetes mounts it
_RENEW_AT: Final = 2 / 3  # of the token's life


def token_source(method: str, vault: Connection, options: Mapping[str, str]) -> TokenSource:
    """Return the login `method` with its `options`; raise `InputError` for an unknown method or a missing option.

    `vault` has no token. Nothing is sent or read yet.
    """

    def option(name: str) -> str:
        if not options.get(name):
            raise InputError(f"the login {method} needs {name}", hint="set it in broker.toml: [login] or [roles.NAME]")
        return options[name]

    mount = options.get("mount") or _MOUNTS.get(method, vault.settings.mount)
    match method:
        case "approle":
            return AppRoleLogin(vault, Path(option("role_id_file")), Path(option("secret_id_file")), mount=mount)
        case "jwt":
            return JwtLogin(vault, option("role"), Path(option("jwt_file")), mount=mount)
        case "kubernetes":
            return JwtLogin(vault, option("role"), Path(options.get("jwt_file") or _POD_TOKEN), mount=mount)
        case "cert":
            if not vault.settings.address.startswith("https://"):
                raise InputError("the login cert needs TLS to Vault", hint=vault.settings.hint_for("https"))
            certificate, key = Path(option("certificate_file")), Path(option("key_file"))
            return CertificateLogin(vault, option("role"), certificate, key, mount=mount)
        case "token" if vault.settings.token and not options.get("file"):
            return FixedToken(vault.settings.token)
        case "token":
            return FileToken(Path(option("file")))
    raise InputError(f"there is no login method {method}", hint=f"use one of {', '.join(METHODS)}")


class FixedToken(TokenSource):
    """A token given by value. It is neither renewed nor revoked."""

    def __init__(self, token: Secret[str]) -> None:
        self._token = token

    def token(self) -> Secret[str]:
        """Return it."""
        return self._token

    def at_hand(self) -> Secret[str]:
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

    def at_hand(self) -> Secret[str] | None:
        """Return the token, None if it was never read."""
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


class Grant(Struct, frozen=True):
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
class RenewedLogin(TokenSource):
    """Log in when a token is first needed; renew it at two thirds of its life. Log in again when it is gone.

    The thread that needs the token does it, one at a time. Files are read at every login, so that a new secret takes
    effect without a restart. `close` revokes the token. `vault` is a connection without a token. Subclasses say what a
    login sends.
    """

    vault: Connection
    mount: str = field(kw_only=True)
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, init=False)
    _grant: Grant | None = field(default=None, init=False)

    def token(self) -> Secret[str]:
        """Return a valid token; raise `DeniedError` if Vault refuses the login."""
        with self._one_at_a_time:
            self._grant = self._refreshed(self._grant)
            return self._grant.token

    def at_hand(self) -> Secret[str] | None:
        """Return the token, None if a login or a renewal is due."""
        grant = self._grant
        return grant.token if grant and grant.has(_RENEW_AT, self.clock()) else None

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
                self.vault.revoke(grant.token)

    def _body(self) -> Document:
        """Return what a login sends; raise `DeniedError` if a file cannot be read."""
        raise NotImplementedError

    def _renewable(self, grant: Grant) -> bool:
        """Return whether the token may be renewed, and a login is not better."""
        return grant.renewable

    def _refusal(self, *, known: bool) -> DeniedError:
        """Return the error of a login that Vault refuses; `known` if the mount is one, and finds it invalid."""
        raise NotImplementedError

    def _refreshed(self, grant: Grant | None) -> Grant:
        now = self.clock()
        if grant and grant.has(_RENEW_AT, now):
            return grant
        if grant and grant.has(1, now) and self._renewable(grant):
            with suppress(DeniedError, UnclearError):  # Vault answers 500 if a token ends while it is renewed
                answer = self.vault.ask("POST", "auth/token/renew-self", {}, token=grant.token)
                renewed = granted(answer, self.clock())
                if renewed.has(1, grant.began + grant.seconds):  # at its maximum TTL, renewal grants no more time
                    return renewed
        return self._logged_in()

    def _logged_in(self) -> Grant:
        body = self._body()
        try:
            return granted(self.vault.ask("POST", f"auth/{self.mount}/login", body), self.clock())
        except InvalidError:
            raise self._refusal(known=True) from None
        except (UnmountedError, MissingError, DeniedError):
            raise self._refusal(known=False) from None

    def _refused(self, what: str, hint: str) -> DeniedError:
        where = self.vault.settings.whereabouts
        message = f"{where} refuses the login of {self.vault.holder} at auth/{self.mount}, {what}"
        return DeniedError(message, hint=hint)


@dataclass(eq=False, repr=False)
class AppRoleLogin(RenewedLogin):
    """A role-id and a secret-id in files."""

    role_id: Path
    secret_id: Path

    def _body(self) -> Document:
        for file in (self.role_id, self.secret_id):
            if not content(file):
                hint = f"a Vault administrator makes it: {self._setup}"
                raise _unreadable(file, self.vault, hint)
        return {"role_id": content(self.role_id), "secret_id": Secret(content(self.secret_id) or "")}

    def _refusal(self, *, known: bool) -> DeniedError:
        hint = (
            "nothing there knows such logins: are address, namespace and mount right? broker config show; "
            f"else a Vault administrator sets it up: {self._setup}"
        )
        if known:
            cause = f"{self.secret_id} expired or was revoked, or was made for another Vault or namespace"
            hint = f"{cause}; a Vault administrator makes a new one: {self._setup}"
        return self._refused(f"the AppRole of {self.role_id}", hint)

    @property
    def _setup(self) -> str:
        """The command of an administrator that writes these files."""
        folder = self.secret_id.parent
        is_ours = self.secret_id.name == "secret_id" and folder.name in {role.value for role in Role}
        return f"broker vault setup --login-dir {shlex.quote(str(folder.parent)) if is_ours else 'roles'}"


@dataclass(eq=False, repr=False)
class JwtLogin(RenewedLogin):
    """A JWT in a file that another program renews: a mount of type jwt or kubernetes."""

    role: str
    file: Path

    def _body(self) -> Document:
        found = content(self.file)
        if not found:
            raise _unreadable(self.file, self.vault, "is it mounted into this container, or written by its agent?")
        return {"role": self.role, "jwt": Secret(found)}

    def _refusal(self, *, known: bool) -> DeniedError:  # noqa: ARG002  # Vault says no more
        hint = (
            f"is the JWT of {self.file} valid, and does that role bind it? bao read auth/{self.mount}/role/{self.role}"
        )
        return self._refused(f"role {self.role}", hint)


@dataclass(eq=False, repr=False)
class CertificateLogin(RenewedLogin):
    """A client certificate. Vault renews a token only over a connection with the certificate of its login.

    So a token is renewed while the file has that certificate, and the next one comes from a login.
    """

    role: str
    certificate: Path
    key: Path
    _used: str = field(default="", init=False)  # the certificate of the login

    def _renewable(self, grant: Grant) -> bool:
        return grant.renewable and content(self.certificate) == self._used

    def _body(self) -> Document:
        for file in (self.certificate, self.key):
            if not content(file):
                raise _unreadable(file, self.vault, "the certificate and key of the role, PEM: check owner and mode")
        self.vault.close()  # its connections have the certificate of before
        settings = replace(self.vault.settings, client_certificate=self.certificate, client_key=self.key)
        self.vault = Connection(settings, seen=self.vault.seen, holder=self.vault.holder)
        self._used = content(self.certificate) or ""
        return {"name": self.role}

    def _refusal(self, *, known: bool) -> DeniedError:  # noqa: ARG002  # Vault says no more
        hint = f"does that role trust {self.certificate}? bao read auth/{self.mount}/certs/{self.role}"
        return self._refused(f"certificate role {self.role}", hint)


def _unreadable(file: Path, vault: Connection, hint: str) -> DeniedError:
    return DeniedError(f"{file}, which {vault.holder} logs in with, cannot be read", hint=hint)


def content(file: Path) -> str | None:
    """Return the text of `file` without blanks around it: None if there is no file, "" if it cannot be read."""
    try:
        return read_file(file).decode("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return ""
