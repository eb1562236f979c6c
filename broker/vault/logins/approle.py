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

if TYPE_CHECKING:
    from broker.vault.connection import Connection, Document

__all__ = ["AppRoleLogin"]

_RENEW_AT: Final = 2 / 3  # of the token's life


@dataclass(frozen=True, slots=True)
class _Lease:
    token: Secret[str]
    renew_at: float
    ends: float
    renewable: bool


class AppRoleLogin:
    """Log in when a token is first needed; renew at two thirds of its life; log in again when it is gone.

    Whoever asks at that moment does it, one thread at a time. The files are read at every login, so that a new
    secret-id takes effect without a restart. `close` revokes the token. `vault` is a connection of no token of its own.
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
        self._role_id = role_id
        self._secret_id = secret_id
        self._mount = mount
        self._clock = clock
        self._one_at_a_time = threading.Lock()
        self._lease: _Lease | None = None

    def token(self) -> Secret[str]:
        """Return a living token; raise `DeniedError` when Vault does not know the role or secret-id."""
        lease = self._lease
        if lease and self._clock() < lease.renew_at:
            return lease.token
        with self._one_at_a_time:
            self._lease = self._refreshed(self._lease)
            return self._lease.token

    def replace(self, dead: Secret[str]) -> bool:
        """Log in again, unless another thread has."""
        with self._one_at_a_time:
            if self._lease is None or self._lease.token == dead:
                self._lease = self._logged_in()
        return True

    def close(self) -> None:
        """Revoke the token, if there is one. Where Vault cannot be asked, its short life ends it."""
        with self._one_at_a_time:
            lease, self._lease = self._lease, None
        if lease:
            try:
                self._vault.ask("POST", "auth/token/revoke-self", token=lease.token)
            except BrokerError:
                return

    def _refreshed(self, lease: _Lease | None) -> _Lease:
        now = self._clock()
        if lease and now < lease.renew_at:
            return lease
        if lease and lease.renewable and now < lease.ends:
            renewed = self._renewed(lease)
            if renewed and renewed.ends > lease.ends:  # at its maximum TTL, renewal grants nothing more
                return renewed
        return self._logged_in()

    def _renewed(self, lease: _Lease) -> _Lease | None:
        try:
            return self._granted(self._vault.ask("POST", "auth/token/renew-self", {}, token=lease.token))
        except (DeniedError, UnclearError):  # Vault answers 500 where a token ends while it is renewed
            return None

    def _logged_in(self) -> _Lease:
        body = {"role_id": _content(self._role_id), "secret_id": Secret(_content(self._secret_id))}
        try:
            return self._granted(self._vault.ask("POST", f"auth/{self._mount}/login", body))
        except InvalidError:
            raise self._kept_out(
                f"is {self._secret_id} expired or revoked? broker vault setup makes new ones; "
                "else this is another Vault, or another namespace, than it was made for"
            ) from None
        except (UnmountedError, MissingError, DeniedError):
            raise self._kept_out(
                "nothing there knows such logins: are address, namespace and mount the right ones? broker config show; "
                "else set it up: broker vault setup"
            ) from None

    def _kept_out(self, hint: str) -> DeniedError:
        where = self._vault.settings.whereabouts
        return DeniedError(
            f"{where} does not let us in at auth/{self._mount} as the AppRole of {self._role_id}", hint=hint
        )

    def _granted(self, answer: Document) -> _Lease:
        auth: Any = answer.get("auth")
        try:
            token, duration, renewable = auth["client_token"], float(auth["lease_duration"]), bool(auth["renewable"])
        except (KeyError, TypeError, ValueError):
            raise UnclearError("Vault's answer to a login is no login", hint="check VAULT_ADDR") from None
        now = self._clock()
        return _Lease(Secret(token), now + duration * _RENEW_AT, now + duration, renewable)


def _content(path: Path) -> str:
    try:
        text = read_file(path).decode("ascii").strip()
    except (OSError, ValueError):
        text = ""
    if not text:
        raise DeniedError(f"{path} cannot be read, and we log in with it", hint="broker vault setup makes it")
    return text
