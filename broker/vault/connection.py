"""Connection to Vault or OpenBao: requests, retries, and KV v2 under check-and-set.

Synchronous, and shared by threads: they share one session and take their token from one `TokenSource`. Code on an event
loop calls it through `service.offload` only.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from typing import Any, Final
from urllib.parse import quote

import requests
import stamina

from broker.errors import ConflictError, DeniedError, InputError, RefusedError, VaultUnavailableError
from broker.model.compare_and_set import compare_and_set
from broker.model.duration import duration_text
from broker.model.secret import Secret
from broker.network import TooMuchError, behind, is_closed
from broker.vault.bounds import BOUNDS_AS_GRANTED, DESCRIPTION
from broker.vault.errors import MissingError, OversizedError, PassingError, UnclearError
from broker.vault.logins.source import TokenSource
from broker.vault.observer import Observer, Phase, unobserved
from broker.vault.responses import Answer, Document, field_of, unclear, understood
from broker.vault.settings import VaultSettings
from broker.vault.transport import base_url, new_session, redirected, whole

__all__ = ["Connection", "Document", "Seen", "Stored"]

# By default stamina logs retries through structlog, if that is installed: to standard output, among the data
stamina.instrumentation.set_on_retry_hooks([])

_INDEX: Final = (
    "X-Vault-Index"  # the state that a read must include; OpenBao and Vault Enterprise support it, others ignore it
)
_BEHIND: Final = {"X-Vault-Inconsistent": "forward-active-node"}  # for a standby that is behind that state
_REDIRECTS: Final = (301, 302, 307, 308)
_HOPS: Final = 2
_TOLERANCE: Final = timedelta(minutes=5)  # between our clock and Vault's
_LONG: Final = 6  # attempts: the first five take under two seconds
_SHORTEST: Final = 0.5  # seconds for one read, even with less patience


@dataclass(frozen=True, slots=True)
class Stored:
    """A document of KV v2 and its version."""

    data: Document = field(repr=False)  # keys and passwords are documents too
    version: int


@dataclass(slots=True)
class Seen:
    """State of Vault that a process has seen, shared by its connections, so that none reads an older one.

    `index` is from the newest answer that carried one; `away` means that patience ended on the last request. `date` is
    Vault's clock at its newest answer, as HTTP writes it, and `ours` this machine's, in seconds since the epoch. `wait`
    is called with a text for people if a request takes long because Vault is away.
    """

    index: str = ""
    away: bool = False
    date: str = ""
    ours: float = 0.0
    wait: Callable[[str], None] = lambda _: None


class Connection:
    """KV v2 under one mount, and the rest of Vault's API by `call` and `ask`.

    Paths of `read`, `write` and the like are relative to the mount, as `layout` makes them. Every method raises
    `VaultUnavailableError` when patience runs out, `DeniedError`, and the errors in its first line.
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
        self._seen = seen or Seen()

    def read(self, path: str, version: int = 0) -> Stored:
        """Return `version` of the document at `path`, the newest with 0; raise `MissingError`."""
        answer = self.ask("GET", self._kv("data", path), {"version": version} if version else None)
        data, version = field_of(answer, "data", "data"), field_of(answer, "data", "metadata", "version")
        if data is None and isinstance(version, int):  # KV keeps a null too
            return Stored({}, version)
        if not isinstance(data, Mapping) or not isinstance(version, int):
            raise unclear(path)
        return Stored(data, version)

    def read_or_none(self, path: str) -> Stored | None:
        """Return the newest version at `path`, or None if nothing is stored."""
        try:
            return self.read(path)
        except MissingError:
            return None

    def write(self, path: str, data: Document, *, replacing: int) -> None:
        """Store `data` as the version after `replacing` (0: nothing yet); raise `ConflictError`.

        A write whose answer was lost is sent again, and then conflicts with itself: `change` settles that. On a mount
        that others use too, a new document gets its own bounds. A process that is killed between the two writes leaves
        a document without bounds; the next `setup` sets them.
        """
        needs_bounds = replacing == 0 and self._is_shared
        self._put(path, data, replacing)
        if needs_bounds:
            with suppress(DeniedError):  # the policies are older than the adopted mount; `setup` renews them
                self.call("POST", self._kv("metadata", path), BOUNDS_AS_GRANTED)

    def create(self, path: str, data: Document) -> None:
        """Store `data`, which is written once, where nothing was stored before; raise `ConflictError`."""
        try:
            self._put(path, data, 0)
        except DeniedError:
            # A role with `create` alone is denied overwriting before CAS is looked at
            with suppress(DeniedError):
                if self.versions(path):
                    raise ConflictError(f"{path} exists already") from None
            raise

    def adopt(self, path: str, make: Callable[[], Document]) -> Document:
        """Return the document at `path`, which is written once. If there is none, create it: the first writer wins."""
        stored = self.read_or_none(path)
        if stored is None:
            with suppress(ConflictError):
                self.create(path, make())
            stored = self.read(path)
        return stored.data

    def change(self, path: str, change: Callable[[Document | None], Document]) -> Document:
        """Apply the pure `change` to the document at `path` (None: nothing yet), under compare-and-set; return the new.

        A write whose answer was lost is settled by reading the version that it would have made. Raise `ConflictError`
        if others keep writing.
        """

        def read() -> tuple[Document | None, int]:
            stored = self.read_or_none(path)
            return (stored.data, stored.version) if stored else (None, 0)

        def write(document: Document | None, version: int) -> None:
            self.write(path, document or {}, replacing=version)

        return compare_and_set(path, read, write, partial(self.landed, path), change) or {}

    def landed(self, path: str, data: Document | None, version: int) -> bool:
        """Return whether the version after `version` is `data`, even if others have written since.

        False if that version is not kept any more: as many writes followed it as the mount keeps versions.
        """
        try:
            return self.read(path, version=version + 1).data == data
        except MissingError:
            return False

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

        Destroying it twice is no error. Success is read back, not believed: a secret that survives here would stay for
        ever. Backups and snapshots of Vault may still hold it.
        """
        numbers = sorted(self.versions(path)) or [1]  # a node that is behind may show none
        with suppress(MissingError):
            self.call("POST", self._kv("destroy", path), {"versions": numbers})
        if any(self.versions(path).values()):
            raise unclear(path)

    def call(self, method: str, api_path: str, body: Document | None = None) -> Document:
        """Send a request that changes something; return Vault's answer, empty if it has no body.

        `api_path` follows `/v1/`. Raises `InvalidError` if Vault finds the request invalid.
        """
        self._observer(Phase.BEFORE, api_path)
        answer = self._patiently(method, api_path, body, None)
        self._observer(Phase.AFTER, api_path)
        return answer

    def ask(
        self, method: str, api_path: str, body: Document | None = None, *, token: Secret[str] | None = None
    ) -> Document:
        """Send a request that changes no data of the broker: a read, login or look-up. Otherwise as `call`.

        `token` replaces the connection's own; it is neither renewed nor replaced by another.
        """
        return self._patiently(method, api_path, body, token)

    @property
    def answered(self) -> bool:
        """Whether Vault has answered this process."""
        return self._seen.ours > 0

    @property
    def their_clock(self) -> datetime | None:
        """Vault's clock at its newest answer, to the second; None if the answer has no date."""
        try:
            return parsedate_to_datetime(self._seen.date).astimezone(UTC)
        except (TypeError, ValueError):  # no date, or an invalid one
            return None

    def require_true_clock(self) -> None:
        """Raise `RefusedError` if this machine's clock is minutes away from Vault's, by Vault's newest answer.

        Stored documents are dated by it and read on other machines, and certificates are checked by it. An answer
        without a date passes.
        """
        theirs = self.their_clock
        if theirs is None:
            return
        ahead = datetime.fromtimestamp(self._seen.ours, UTC) - theirs
        if abs(ahead) > _TOLERANCE:
            way = "ahead of" if ahead > timedelta(0) else "behind"
            raise RefusedError(
                f"this machine's clock is {duration_text(abs(ahead))} {way} Vault's; refusing to use it",
                hint="timedatectl shows the clock: correct the wrong one, here or on the host of Vault",
            )

    def close(self) -> None:
        """Revoke the token if this connection's login made it, and close the session.

        If patience ended on the last request, the token is left to expire: nobody waits twice.
        """
        if self._tokens is not None and not self._seen.away:
            self._tokens.close()
        if "_session" in self.__dict__:
            self._session.close()

    def _put(self, path: str, data: Document, replacing: int) -> None:
        answer = self.call("POST", self._kv("data", path), {"data": dict(data), "options": {"cas": replacing}})
        if not isinstance(field_of(answer, "data", "version"), int):
            raise unclear(path)

    @cached_property
    def _is_shared(self) -> bool:
        """Whether others use the mount too. Vault answers this to every token with a right below the mount."""
        try:
            answer = self.ask("GET", f"sys/internal/ui/mounts/{self.settings.mount}")
        except DeniedError:
            return False
        return field_of(answer, "data", "description") not in (None, DESCRIPTION)

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
            # Vault denies a dead token and a live one without the right in the same words: ask which it is
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
        base = base_url(self.settings)
        for _ in range(_HOPS + 1):
            with _reached(path, self.settings.whereabouts):
                answer = self._exchange(method, f"{base}/v1/{quote(path)}", body, token)
            if answer.status not in _REDIRECTS:
                return understood(answer, path)
            base = redirected(answer.headers.get("Location", ""), self.settings)
        raise PassingError("Vault's nodes redirect to each other", hint="is it electing a leader? try again")

    def _exchange(self, method: str, url: str, body: Document | None, token: Secret[str] | None) -> Answer:
        response = self._session.request(
            method,
            url,
            headers=self._headers(token),
            stream=True,
            timeout=min(self.settings.timeout, max(self.settings.patience, _SHORTEST)),
            allow_redirects=False,
            **{"params" if method == "GET" else "json": _bare(body)},
        )
        with response:
            answer = Answer(response.status_code, response.headers, whole(response))
        self._seen.index = answer.headers.get(_INDEX, self._seen.index)
        self._seen.date, self._seen.ours = answer.headers.get("Date", ""), time.time()
        return answer

    def _headers(self, token: Secret[str] | None) -> dict[str, str]:
        headers = {"X-Vault-Request": "true"}
        if token:
            headers["X-Vault-Token"] = token.reveal()
        if self.settings.namespace:
            headers["X-Vault-Namespace"] = self.settings.namespace
        if self._seen.index:
            headers |= {**_BEHIND, _INDEX: self._seen.index}
        return headers

    @cached_property
    def _session(self) -> requests.Session:
        return new_session(self.settings)


def _bare(value: Any) -> Any:
    """Return `value` with its secrets revealed. Up to here they are `Secret`s, so that no traceback shows them."""
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
    """Turn errors of requests and the libraries below it into ours. Their text may quote a header: drop it."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise _tls_fault(error, path, vault) from None
    except TooMuchError:
        raise OversizedError(
            f"{vault} sends more for {path} than a Vault would", hint="is it a Vault? check VAULT_ADDR"
        ) from None
    except ValueError:  # before RequestException: requests' InvalidHeader and InvalidURL are both
        raise InputError(
            "a request to Vault cannot be sent", hint="token, namespace or address contains an invalid character"
        ) from None
    except (requests.RequestException, OSError) as error:
        raise _not_reached(error, path, vault) from None


def _not_reached(error: Exception, path: str, vault: str) -> PassingError:
    return PassingError(
        f"{vault} was not reached for {path} ({type(error).__name__})",
        hint="is the address right, and is it up? broker config show names the source of each setting",
    )


def _tls_fault(error: Exception, path: str, vault: str) -> VaultUnavailableError:
    """Return the error for a failed handshake. A connection closed within it may be a server that is away: retry."""
    found = next((one for one in behind(error) if isinstance(one, ssl.SSLError)), error)
    if is_closed(found):
        return _not_reached(found, path, vault)
    words = (getattr(found, "reason", "") or "for an unknown reason").replace("_", " ").lower()
    detail = getattr(found, "verify_message", "")
    return UnclearError(
        f"{vault}: TLS failed ({': '.join(filter(None, (words, detail)))})",
        hint="check VAULT_CACERT, VAULT_TLS_SERVER_NAME, VAULT_CLIENT_CERT, its key, the clock, and https://",
    )
