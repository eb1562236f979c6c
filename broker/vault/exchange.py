"""Exchange a caller's JWT for a token of Vault, at the JWT mount of its issuer.

The issuer in the JWT is compared exactly with those of the configuration; Vault then verifies signature, audience,
times and subject. The role is ours, never the caller's. Source: Vault API, "/auth/jwt/login".
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import jwt

from broker.errors import BrokerError, DeniedError
from broker.model.jwt_issuer import JwtIssuer
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.errors import InvalidError
from broker.vault.logins import granted

_LARGEST: Final = 16 * 1024  # characters of a JWT
_KEPT: Final = 1000  # tokens in memory
_LONGEST: Final = 60.0  # seconds that a token is used again
_LOCKS: Final = 64


@dataclass(frozen=True, slots=True)
class _Exchanged:
    token: Secret[str]
    until: float  # monotonic


class Exchange:
    """Tokens by the digest of the JWT they were exchanged for. Shared by threads; one exchange at a time for a JWT."""

    def __init__(
        self,
        vault: Callable[[], Connection],
        issuers: Mapping[str, JwtIssuer],
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vault = vault
        self._by_issuer = {issuer.issuer: issuer for issuer in issuers.values()}
        self._uptime = uptime
        self._kept: dict[bytes, _Exchanged] = {}
        self._lock = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def token(self, presented: Secret[str]) -> Secret[str]:
        """Return a token of the JWT's bearer; raise `DeniedError` if no issuer of ours, or Vault, accepts it."""
        issuer = self._issuer(presented)
        digest = hashlib.sha256(presented.reveal().encode()).digest()
        with self._locks[digest[0] % _LOCKS]:
            kept = self._kept.get(digest)
            if kept and kept.until > self._uptime():
                return kept.token
            return self._exchanged(issuer, presented, digest)

    def close(self) -> None:
        """Revoke every token that may still be valid."""
        with self._lock:
            kept, self._kept = list(self._kept.values()), {}
        for exchanged in kept:
            self._revoke(exchanged)

    def _issuer(self, presented: Secret[str]) -> JwtIssuer:
        text = presented.reveal()
        try:
            if len(text) > _LARGEST or not text.isascii():
                raise jwt.DecodeError
            claims = jwt.decode(text, options={"verify_signature": False})  # Vault verifies it
            return self._by_issuer[claims["iss"]]
        except jwt.InvalidTokenError:
            raise DeniedError("the bearer token is not a JWT") from None
        except (KeyError, TypeError):
            raise DeniedError(
                "no issuer of this configuration made the JWT", hint="[issuers.NAME] in broker.toml names it"
            ) from None

    def _exchanged(self, issuer: JwtIssuer, presented: Secret[str], digest: bytes) -> Secret[str]:
        try:
            answer = self._vault().ask("POST", f"auth/{issuer.mount}/login", {"role": issuer.role, "jwt": presented})
        except (InvalidError, DeniedError) as error:
            raise DeniedError(f"Vault's mount {issuer.mount} does not accept the JWT: {error.message}") from None
        grant = granted(answer)
        exchanged = _Exchanged(grant.token, self._uptime() + min(_LONGEST, grant.seconds / 2))
        with self._lock:
            dropped = self._make_room()
            self._kept[digest] = exchanged
        for old in dropped:
            self._revoke(old)
        return exchanged.token

    def _make_room(self) -> list[_Exchanged]:
        now = self._uptime()
        over = [digest for digest, kept in self._kept.items() if kept.until <= now]
        if not over and len(self._kept) >= _KEPT:
            over = [next(iter(self._kept))]
        return [self._kept.pop(digest) for digest in over]

    def _revoke(self, exchanged: _Exchanged) -> None:
        with suppress(BrokerError):
            self._vault().ask("POST", "auth/token/revoke-self", token=exchanged.token)
