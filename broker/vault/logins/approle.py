"""AppRole: a role-id and a secret-id, each in a file, for a token that lives minutes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.errors import BrokerError, DeniedError
from broker.model.secret import Secret
from broker.paths import read_file
from broker.vault.errors import InvalidError, MissingError, UnclearError, UnmountedError

if TYPE_CHECKING:  # it imports this package
    from broker.vault.connection import Connection, Document

__all__ = ["AppRoleLogin", "Grant", "granted"]

_RENEW_AT: Final = 2 / 3  # of the token's life


@dataclass(frozen=True, slots=True)
class Grant:
    """A token from a login or a renewal. It lives `seconds` from `began`, which is of any clock."""

    token: Secret[str]
    began: float
    seconds: float
    renewable: bool

    @property
    def ends(self) -> float:
        """The end of its life."""
        return self.began + self.seconds

    @property
    def renew_at(self) -> float:
        """The time to renew it."""
        return self.began + self.seconds * _RENEW_AT


def granted(answer: Document, now: float = 0.0) -> Grant:
    """Return the token in Vault's answer to a login or a renewal; raise `UnclearError`."""
    auth: Any = answer.get("auth")
    try:
        return Grant(Secret(auth["client_token"]), now, float(auth["lease_duration"]), bool(auth["renewable"]))
    except (KeyError, TypeError, ValueError):
        raise UnclearError("Vault's answer to a login contains no token", hint="check VAULT_ADDR") from None


class AppRoleLogin:
    """Log in when a token is first needed; renew it at two thirds of its life; log in again when it is gone.

    The thread that needs the token does it, one at a time. The files are read at every login, so that a new secret-id
    takes effect without a restart. `close` revokes the token. `vault` is a connection without a token.
    """

    def __init__(
        self,
        vault: Connection,
        role_id: Path,
        secret_id: Path,
        *,
        mount: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vault = vault
        self._files = role_id, secret_id
        self._mount = mount
        self._clock = clock
        self._one_at_a_time = threading.Lock()
        self._grant: Grant | None = None

    def token(self) -> Secret[str]:
        """Return a valid token; raise `DeniedError` if Vault does not know the role or secret-id."""
        grant = self._grant
        if grant and self._clock() < grant.renew_at:
            return grant.token
        with self._one_at_a_time:
            self._grant = self._refreshed(self._grant)
            return self._grant.token

    def replace(self, dead: Secret[str]) -> bool:
        """Log in again, unless another thread has."""
        with self._one_at_a_time:
            if self._grant is None or self._grant.token == dead:
                self._grant = self._logged_in()
        return True

    def close(self) -> None:
        """Revoke the token, if there is one, and close the connection. If Vault is away, the token soon expires."""
        with self._one_at_a_time:
            grant, self._grant = self._grant, None
        try:
            if grant:
                self._vault.ask("POST", "auth/token/revoke-self", token=grant.token)
        except BrokerError:
            return
        finally:
            self._vault.close()

    def _refreshed(self, grant: Grant | None) -> Grant:
        now = self._clock()
        if grant and now < grant.renew_at:
            return grant
        if grant and grant.renewable and now < grant.ends:
            renewed = self._renewed(grant.token)
            if renewed and renewed.ends > grant.ends:  # at its maximum TTL, renewal grants no more time
                return renewed
        return self._logged_in()

    def _renewed(self, token: Secret[str]) -> Grant | None:
        try:
            return granted(self._vault.ask("POST", "auth/token/renew-self", {}, token=token), self._clock())
        except (DeniedError, UnclearError):  # Vault answers 500 if a token ends while it is renewed
            return None

    def _logged_in(self) -> Grant:
        role_id, secret_id = self._files
        body = {"role_id": _content(role_id), "secret_id": Secret(_content(secret_id))}
        try:
            return granted(self._vault.ask("POST", f"auth/{self._mount}/login", body), self._clock())
        except InvalidError:
            hint = (
                f"is {secret_id} expired or revoked? broker vault setup makes new ones; "
                "else it was made for another Vault, or another namespace"
            )
        except (UnmountedError, MissingError, DeniedError):
            hint = (
                "nothing there knows such logins: are address, namespace and mount right? broker config show; "
                "else set it up: broker vault setup"
            )
        where = self._vault.settings.whereabouts
        raise DeniedError(f"{where} refuses the login at auth/{self._mount} as the AppRole of {role_id}", hint=hint)


def _content(path: Path) -> str:
    try:
        text = read_file(path).decode("ascii").strip()
    except (OSError, ValueError):
        text = ""
    if not text:
        raise DeniedError(f"{path}, needed to log in to Vault, cannot be read", hint="broker vault setup makes it")
    return text
