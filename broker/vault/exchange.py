"""Exchange a caller's JWT for a token of Vault, at the JWT mount of its issuer.

The issuer in the JWT is compared exactly with those of the configuration; Vault then verifies signature, audience,
times and subject. The role follows from issuer and subject, whatever the caller asks for: a subject that is not
enrolled has none. Source: Vault API, "/auth/jwt/login".
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import jwt
from msgspec import Struct

from broker.errors import BrokerError, DeniedError, PartlyUnavailableError, VaultUnavailableError
from broker.model.bounded import Bounded
from broker.model.jwt_issuer import JwtIssuer
from broker.model.secret import Secret
from broker.vault.connection import Connection
from broker.vault.errors import InvalidError, MissingError, PassingError, UnmountedError
from broker.vault.logins import granted
from broker.vault.transport import SEAL_STATUS

_LARGEST: Final = 16 * 1024  # characters of a JWT
_KEPT: Final = 10_000  # tokens to use again
_LONGEST: Final = 60.0  # seconds that a token is used again
_SPARED: Final = 30.0  # seconds before it is revoked: a judgement may still be using it
_FEW: Final = 4  # tokens that one request revokes
_LOCKS: Final = 64
_REFUSALS: Final = (InvalidError, DeniedError, MissingError, UnmountedError)


class _Exchanged(Struct, frozen=True):
    token: Secret[str]
    until: float  # uptime
    unused: float  # uptime from which nothing uses it


class _Claims(Struct, frozen=True):
    issuer: JwtIssuer
    subject: str
    expires: float  # seconds since the epoch
    begins: float
    audiences: list[object]

    @property
    def doubt(self) -> tuple[str, str]:
        """The probable reason of Vault, whose own words are not passed on, to refuse the JWT; and the hint."""
        if self.issuer.audience not in self.audiences:
            return f"its audience is not {self.issuer.audience}", "get a JWT with this audience"
        if not self.begins <= time.time() <= self.expires:
            return "it has expired, or is not valid yet", "get a new JWT; if that is refused too, check the clocks"
        reason = "its subject is not enrolled, or its signature is not the issuer's"
        return reason, "VAULT_TOKEN=… broker vault enrol --list"


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
        self._kept: Bounded[bytes, _Exchanged] = Bounded(_KEPT)
        self._unrevoked: deque[_Exchanged] = deque()
        self._lock = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def token(self, presented: Secret[str]) -> Secret[str]:
        """Return a token of the JWT's bearer; raise `DeniedError` if no issuer of ours, or Vault, accepts it.

        Raise `PartlyUnavailableError` if Vault is up, and the login fails: Vault may not reach the issuer's keys.
        """
        claims = self._claims(presented)
        digest = presented.digest()
        with self._locks[digest[0] % _LOCKS]:
            kept = self._kept.get(digest)
            if kept and kept.until > self._uptime():
                return kept.token
            token = self._exchanged(claims, presented, digest)
        self._revoke(self._over())
        return token

    def mount(self, presented: Secret[str]) -> str:
        """Return the mount at which a JWT would be exchanged; "" if there is none. Nothing of it is verified."""
        try:
            return self._claims(presented).issuer.mount
        except DeniedError:
            return ""

    def close(self) -> None:
        """Revoke every token that may still be valid, until Vault is away: they end within two minutes."""
        with self._lock:
            self._kept.clear()
            unrevoked, self._unrevoked = self._unrevoked, deque()
        self._revoke(unrevoked)

    def _claims(self, presented: Secret[str]) -> _Claims:
        text = presented.reveal()
        try:
            if len(text) > _LARGEST or not text.isascii():
                raise jwt.DecodeError
            claims: Any = jwt.decode(text, options={"verify_signature": False})  # Vault verifies it
        except (jwt.InvalidTokenError, RecursionError):
            raise DeniedError("the bearer token is not a JWT") from None
        issuer, subject, audience = claims.get("iss"), claims.get("sub"), claims.get("aud")
        begins, expires = claims.get("nbf", 0), claims.get("exp", math.inf)
        if not isinstance(issuer, str) or issuer not in self._by_issuer:
            hint = "[issuers.NAME] in broker.toml names those that are accepted"
            raise DeniedError("no issuer of this configuration made the JWT", hint=hint)
        if not isinstance(subject, str) or not subject or not isinstance(expires, int | float):
            raise DeniedError("the JWT has no subject, or no valid end")
        begins = begins if isinstance(begins, int | float) else math.inf
        audiences = audience if isinstance(audience, list) else [audience]
        return _Claims(self._by_issuer[issuer], subject, expires, begins, audiences)

    def _exchanged(self, claims: _Claims, presented: Secret[str], digest: bytes) -> Secret[str]:
        mount, began = claims.issuer.mount, self._uptime()
        body = {"role": claims.issuer.role(claims.subject), "jwt": presented}
        try:
            grant = granted(self._vault().ask("POST", f"auth/{mount}/login", body))
        except _REFUSALS:
            reason, hint = claims.doubt
            message = f"Vault's auth/{mount}/ does not accept the JWT of {claims.subject[:200]!r}: {reason}"
            raise DeniedError(message, hint=hint) from None
        except PassingError as error:
            self._require_up()
            message = f"Vault is up, and a login at auth/{mount}/ fails: {error.message}"
            raise PartlyUnavailableError(message, hint="does Vault reach the issuer's keys? see its log") from None
        used = min(_LONGEST, grant.seconds / 2, claims.expires - time.time())
        until = began + max(used, 0.0)
        exchanged = _Exchanged(grant.token, until, max(until, self._uptime()) + _SPARED)
        with self._lock:
            self._kept[digest] = exchanged
            self._unrevoked.append(exchanged)
        return exchanged.token

    def _over(self) -> list[_Exchanged]:
        """Take out and return a few of the oldest tokens that nothing uses any more."""
        over: list[_Exchanged] = []
        with self._lock:
            now = self._uptime()
            while self._unrevoked and self._unrevoked[0].unused <= now and len(over) < _FEW:
                over.append(self._unrevoked.popleft())
            for digest in [digest for digest, kept in self._kept.items() if kept.until <= now]:
                del self._kept[digest]
        return over

    def _require_up(self) -> None:
        """Raise `VaultUnavailableError` if Vault itself does not answer, or is sealed."""
        if self._vault().ask("GET", SEAL_STATUS).get("sealed"):
            raise VaultUnavailableError(
                "Vault is sealed", hint="unseal it: bao operator unseal, or vault operator unseal"
            )

    def _revoke(self, tokens: Iterable[_Exchanged]) -> None:
        for exchanged in tokens:
            try:
                self._vault().revoke(exchanged.token)
            except VaultUnavailableError:
                return
            except BrokerError:
                continue  # it has ended
