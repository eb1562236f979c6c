"""One connection to Vault or OpenBao: the only file that knows hvac, and the only one that sees what it raises.

Synchronous on purpose, and shared by threads: each thread gets its own hvac client and session, all take the token
from one `TokenSource`. Code on an event loop comes here through `service.offload` and in no other way.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import hvac.adapters
import hvac.exceptions
import requests
import stamina

from broker.errors import ConflictError, DeniedError, InputError, RefusedError, VaultUnavailableError
from broker.model.duration import duration_text
from broker.model.secret import Secret
from broker.network import TooMuchError, behind, is_closed
from broker.vault.errors import MissingError, OversizedError, PassingError, UnclearError
from broker.vault.logins.source import TokenSource
from broker.vault.observer import Observer, Phase, unobserved
from broker.vault.responses import Answer, Document, field_of, unclear, understood
from broker.vault.settings import VaultSettings
from broker.vault.transport import base_url, new_session, redirected, whole

__all__ = ["Connection", "Document", "Seen", "Stored"]

# By default stamina logs retries through structlog, if that is installed: to standard output, among the data
stamina.instrumentation.set_on_retry_hooks([])

_INDEX: Final = "X-Vault-Index"  # what a read must have seen; OpenBao and Vault Enterprise heed it, the rest ignore it
_BEHIND: Final = {"X-Vault-Inconsistent": "forward-active-node"}  # what a standby that has not seen it shall do
_REDIRECTS: Final = (301, 302, 307, 308)
_HOPS: Final = 2
_TOLERANCE: Final = timedelta(minutes=5)  # between our clock and Vault's
_LONG: Final = 6  # attempts: the first five take under two seconds, and need no words
_SHORTEST: Final = 0.5  # seconds that one answer may take however short our patience is


@dataclass(frozen=True, slots=True)
class Stored:
    """A document of KV v2 and the version it was read as."""

    data: Document = field(repr=False)  # keys and passwords are documents too
    version: int


@dataclass(slots=True)
class Seen:
    """What a process has seen of its Vault: shared by its connections, so that none reads what is older.

    `index` is of the newest answer that carried one; `away` says that patience ended on the last request. `date` is
    what Vault's clock showed with its newest answer, as HTTP writes it, and `ours` what this machine's did, in seconds
    since the epoch. `wait` is told, in words for people, that a request takes long because Vault is away.
    """

    index: str = ""
    away: bool = False
    date: str = ""
    ours: float = 0.0
    wait: Callable[[str], None] = lambda _: None


class Connection:
    """KV v2 under one mount, and the rest of Vault's API by `call` and `ask`.

    Paths of `read`, `write` and their kind are relative to the mount, as `layout` makes them. Every method raises
    `VaultUnavailableError` when patience runs out, `DeniedError`, and what else its first line says.
    """

    def __init__(
        self,
        settings: VaultSettings,
        tokens: TokenSource | None = None,
        *,
        observer: Observer = unobserved,
        seen: Seen | None = None,
    ) -> None:
        self.settings = settings
        self._tokens = tokens
        self._observer = observer
        self._here = threading.local()
        self._seen = seen or Seen()
        self._sessions: list[requests.Session] = []

    def read(self, path: str, version: int = 0) -> Stored:
        """Return `version` of what is at `path`, the newest with 0; raise `MissingError`."""
        answer = self.ask("GET", self._kv("data", path), {"version": version} if version else None)
        data, version = field_of(answer, "data", "data"), field_of(answer, "data", "metadata", "version")
        if data is None and isinstance(version, int):  # KV keeps a null too
            return Stored({}, version)
        if not isinstance(data, Mapping) or not isinstance(version, int):
            raise unclear(path)
        return Stored(data, version)

    def read_or_none(self, path: str) -> Stored | None:
        """Return the newest version at `path`, or None where nothing is stored."""
        try:
            return self.read(path)
        except MissingError:
            return None

    def write(self, path: str, data: Document, *, replacing: int) -> int:
        """Store `data` as the version after `replacing` and return its number; raise `ConflictError`.

        A write whose answer was lost is sent again and may then meet its own success as `ConflictError`: read, and see.
        """
        body = {"data": dict(data), "options": {"cas": replacing}}
        version = field_of(self.call("POST", self._kv("data", path), body), "data", "version")
        if not isinstance(version, int):
            raise unclear(path)
        return version

    def create(self, path: str, data: Document) -> None:
        """Store `data` where nothing ever was; raise `ConflictError` where something is, or was."""
        try:
            self.write(path, data, replacing=0)
        except DeniedError:
            # A role with `create` alone is denied overwriting before CAS is looked at
            if self._is_there(path):
                raise ConflictError(f"{path} is there already") from None
            raise

    def list(self, path: str) -> tuple[str, ...]:
        """Return the names under `path`, sorted; folders end in "/". Nothing there is no error."""
        try:
            names = field_of(self.ask("LIST", self._kv("metadata", path)), "data", "keys")
        except MissingError:
            return ()
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise unclear(path)
        return tuple(sorted(names))

    def versions(self, path: str) -> Mapping[int, bool]:
        """Return the kept versions of `path` and whether each still holds data."""
        try:
            found = field_of(self.ask("GET", self._kv("metadata", path)), "data", "versions")
        except MissingError:
            return {}
        try:
            return {int(number): not (v["destroyed"] or v["deletion_time"]) for number, v in found.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise unclear(path) from None

    def destroy_all(self, path: str) -> None:
        """Destroy the data of every version. The number stays taken, so `create` never gives it out again.

        Destroying what is gone is no error. Done is what Vault then shows as done, not what it answered: a secret
        that is forgotten here stays for ever. Backups and snapshots of Vault may still hold it.
        """
        numbers = sorted(self.versions(path)) or [1]  # "nothing there" may be said by a node that is behind
        with suppress(MissingError):
            self.call("POST", self._kv("destroy", path), {"versions": numbers})
        if any(self.versions(path).values()):
            raise unclear(path)

    def call(self, method: str, api_path: str, body: Document | None = None) -> Document:
        """Send a request that changes something; return Vault's answer, empty where it has no body.

        `api_path` is what follows `/v1/`. Raises `InputError` where Vault finds the request invalid.
        """
        self._observer(Phase.BEFORE, api_path)
        answer = self._patiently(method, api_path, body, None)
        self._observer(Phase.AFTER, api_path)
        return answer

    def ask(
        self, method: str, api_path: str, body: Document | None = None, *, token: Secret[str] | None = None
    ) -> Document:
        """Send a request that changes nothing in what the broker keeps: reads, logins, look-ups. Else as `call`.

        With `token`, speak as its holder: it is neither renewed nor replaced.
        """
        return self._patiently(method, api_path, body, token)

    @property
    def answered(self) -> bool:
        """Whether Vault has answered this process."""
        return self._seen.ours > 0

    @property
    def their_clock(self) -> datetime | None:
        """When Vault gave its newest answer, by its own clock, to the second; None where it does not say."""
        try:
            return parsedate_to_datetime(self._seen.date).astimezone(UTC)
        except (TypeError, ValueError):  # no date, or none that can be read
            return None

    def require_true_clock(self) -> None:
        """Refuse where this machine's clock is more than minutes from Vault's, by Vault's newest answer.

        What is stored is dated by it and read on other machines; certificates are judged by it. An answer without a
        date shows nothing.
        """
        theirs = self.their_clock
        if theirs is None:
            return
        ahead = datetime.fromtimestamp(self._seen.ours, UTC) - theirs
        if abs(ahead) > _TOLERANCE:
            way = "ahead of" if ahead > timedelta(0) else "behind"
            raise RefusedError(
                f"this machine's clock is {duration_text(abs(ahead))} {way} Vault's: nothing is dated or decided by it",
                hint="timedatectl shows the clock: set the one that is wrong, here or where Vault runs",
            )

    def close(self) -> None:
        """Give back the token where this connection's login made it, and close every session.

        Not where patience ended on Vault just now: the token's short life ends it, and nobody waits twice.
        """
        if self._tokens is not None and not self._seen.away:
            self._tokens.close()
        for session in self._sessions:
            session.close()

    def _is_there(self, path: str) -> bool:
        try:
            return bool(self.versions(path))
        except DeniedError:
            return False

    def _kv(self, kind: str, path: str) -> str:
        return f"{self.settings.mount}/{kind}/{path}"

    def _patiently(self, method: str, path: str, body: Document | None, token: Secret[str] | None) -> Document:
        try:
            answer = self._retried(partial(self._send_as, method, path, body), token)
        except PassingError:
            self._seen.away = True
            raise
        self._seen.away = False
        return answer

    def _retried(self, send: partial[Document], token: Secret[str] | None) -> Document:
        for attempt in stamina.retry_context(
            on=self._pause,
            attempts=None,
            timeout=self.settings.patience,
            wait_initial=0.05,
            wait_max=2.0,
            wait_jitter=0.1,
        ):
            if attempt.num == _LONG:
                patience = duration_text(timedelta(seconds=self.settings.patience))
                self._seen.wait(f"{self.settings.whereabouts} is away: waiting up to {patience} for it")
            with attempt:
                return send(token) if token or not self._tokens else self._send_as_ourselves(send, self._tokens)
        raise AssertionError("stamina ends by returning or raising")

    def _pause(self, error: Exception) -> bool | float:
        if not isinstance(error, PassingError) or error.wait > self.settings.patience:
            return False
        return error.wait or True

    def _send_as_ourselves(self, send: partial[Document], tokens: TokenSource) -> Document:
        token = tokens.token()
        try:
            return send(token)
        except DeniedError:
            # Vault says "permission denied" to a dead token and to a live one without the right: ask which it is
            if not self._is_dead(token) or not tokens.replace(token):
                raise
        return send(tokens.token())

    def _is_dead(self, token: Secret[str]) -> bool:
        try:
            self._send_as("GET", "auth/token/lookup-self", None, token)
        except DeniedError:
            return True
        return False

    def _send_as(self, method: str, path: str, body: Document | None, token: Secret[str] | None) -> Document:
        client = self._client()
        client.token = token.reveal() if token else None
        client.base_uri = base_url(self.settings)
        for _ in range(_HOPS + 1):
            answer = self._exchange(client, method, path, body)
            if answer.status not in _REDIRECTS:
                return understood(answer, path)
            client.base_uri = redirected(answer.headers.get("Location", ""), self.settings)
        raise PassingError("Vault's nodes point at each other", hint="is it electing a leader? try again")

    def _exchange(self, client: Any, method: str, path: str, body: Document | None) -> Answer:
        headers = {**_BEHIND, _INDEX: self._seen.index} if self._seen.index else {}
        with _reached(path, self.settings.whereabouts):
            response: requests.Response = client.request(
                method,
                f"/v1/{quote(path)}",
                headers=headers,
                stream=True,
                **{"params" if method == "GET" else "json": _bare(body)},
            )
            with response:
                answer = Answer(response.status_code, response.headers, whole(response))
        self._seen.index = answer.headers.get(_INDEX, self._seen.index)
        self._seen.date, self._seen.ours = answer.headers.get("Date", ""), time.time()
        return answer

    def _client(self) -> Any:
        if not hasattr(self._here, "client"):
            session = new_session(self.settings)
            self._sessions.append(session)
            # hvac's constructors read VAULT_* by themselves, so everything is said here
            self._here.client = hvac.adapters.RawAdapter(
                base_uri=base_url(self.settings),
                session=session,
                verify=session.verify,
                cert=session.cert,
                timeout=min(self.settings.timeout, max(self.settings.patience, _SHORTEST)),
                namespace=self.settings.namespace or None,
                allow_redirects=False,
                ignore_exceptions=True,
            )
        return self._here.client


def _bare(value: Any) -> Any:
    """Return what goes out for `value`. Until here a secret in a body is a `Secret`, so that no traceback shows it."""
    match value:
        case Secret():
            return value.reveal()
        case Mapping():
            return {name: _bare(one) for name, one in value.items()}
        case list() | tuple():
            return [_bare(one) for one in value]
    return value


@contextmanager
def _reached(path: str, vault: str) -> Iterator[None]:
    """Turn what requests and the libraries under it raise into ours. Their text may quote a header: drop it."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise _tls_fault(error, path, vault) from None
    except TooMuchError:
        raise OversizedError(f"{vault} answers more for {path} than Vault would", hint="is it a Vault?") from None
    except ValueError:  # before RequestException: requests' InvalidHeader and InvalidURL are both
        raise InputError(
            "a request to Vault cannot be written", hint="token, namespace or address holds what cannot travel"
        ) from None
    except (requests.RequestException, hvac.exceptions.VaultError, OSError) as error:
        raise _not_reached(error, path, vault) from None


def _not_reached(error: Exception, path: str, vault: str) -> PassingError:
    return PassingError(
        f"{vault} was not reached for {path} ({type(error).__name__})",
        hint="is that address right, and is it up? broker config show says where each setting comes from",
    )


def _tls_fault(error: Exception, path: str, vault: str) -> VaultUnavailableError:
    """Tell what will not fix itself from a connection closed within the handshake, as before a server that is away."""
    found = next((one for one in behind(error) if isinstance(one, ssl.SSLError)), error)
    if is_closed(found):
        return _not_reached(found, path, vault)
    words = (getattr(found, "reason", "") or "for an unknown reason").replace("_", " ").lower()
    detail = getattr(found, "verify_message", "")
    return UnclearError(
        f"{vault}: TLS failed ({': '.join(filter(None, (words, detail)))})",
        hint="check VAULT_CACERT, VAULT_TLS_SERVER_NAME, VAULT_CLIENT_CERT, its key, the clock, and https://",
    )
