"""HTTP to Vault over TCP or a unix socket. In this room, this file alone knows urllib3."""

import json
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPHeaderDict, PoolManager, Retry
from urllib3.exceptions import HTTPError, ProtocolError, SSLError
from urllib3.util.ssl_ import create_urllib3_context

from broker import unix_socket
from broker.errors import BrokerError, DeniedError, InputError, VaultUnavailableError
from broker.model.secret import Secret
from broker.network import UNREADABLE, TooMuchError, behind, is_closed
from broker.paths import place
from broker.telemetry import log, metrics, trace
from broker.vault.errors import NO_VAULT, Answer, Document, OversizedError, PassingError, UnclearError, understood
from broker.vault.settings import VaultSettings

_THREADS: Final = 64  # that may keep a connection open for their next request
_ONCE: Final = Retry(False, redirect=False)  # the connection repeats and redirects what may be sent again
_LARGEST: Final = 16 * 1024 * 1024  # bytes of an answer: a list of 100,000 names has 4 MB
_PIECE: Final = 64 * 1024
# The state that a read must include; OpenBao and Vault Enterprise support it, others ignore it
_INDEX: Final = "X-Vault-Index"
_BEHIND: Final = {"X-Vault-Inconsistent": "forward-active-node"}  # for a standby that is behind that state
_REDIRECTS: Final = (301, 302, 307, 308)
_HOPS: Final = 2
_REQUEST_ID: Final = re.compile(rb'"request_id": ?"([0-9a-f-]{1,64})"')
_GLANCE: Final = 1.0  # seconds for a TLS handshake that only looks
_PLAIN: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")  # OpenSSL's words for no TLS
SEAL_STATUS: Final = "sys/seal-status"  # every node answers it, without a token or namespace
_SHORTEST: Final = 0.5  # seconds for one read, even with less patience


class Reply(NamedTuple):
    """An answer 200."""

    headers: Sequence[tuple[str, str]]
    body: bytes


# Send a POST of a target, with headers and a body, on an event loop; return None if no answer 200 comes
Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Reply | None]]


@dataclass(slots=True)
class Seen:
    """State of Vault that a process has seen, shared by its connections, so that none reads an older one.

    `index` is from the newest answer that carried one; `away` means that patience ended on the last request. `date` is
    Vault's clock at its newest answer, as HTTP writes it, and `ours` this machine's, in seconds since the epoch. `wait`
    is called with a text for people if a request takes long because Vault is away. `speaks_http` means that a plain
    address answered as a Vault does.
    """

    index: str = ""
    away: bool = False
    date: str = ""
    ours: float = 0.0
    wait: Callable[[str], None] = lambda _: None
    speaks_http: bool = False


class Transport:
    """Requests to one Vault, over one pool of connections for all threads."""

    def __init__(self, settings: VaultSettings, seen: Seen) -> None:
        self._settings = settings
        self._seen = seen
        self._looked = False
        self._hosts: dict[str, HTTPConnectionPool] = {}

    def send(self, method: str, path: str, body: Document | None, token: Secret[str] | None) -> Document:
        """Return the content of the answer to a request for `path`, which follows `/v1/`; follow a standby's redirect.

        Raise `PassingError` if Vault is not reached, and for an answer that is an error what `understood` raises. A
        plain address is first asked for what needs no secret: a TLS port behind it would get the secret in clear.
        """
        if not self._settings.is_plain or self._seen.speaks_http:
            return self._send(method, path, body, token)
        if path != SEAL_STATUS:
            with suppress(DeniedError, InputError):  # a proxy may forbid this path, but not in TLS
                self.send("GET", SEAL_STATUS, None, None)
        try:
            answer = self._send(method, path, body, token)
        except (PassingError, UnclearError):
            self._require_no_tls()
            raise
        self._seen.speaks_http = True
        return answer

    async def post(self, path: str, body: Document, token: Secret[str], post: Post) -> Document:
        """Return the content of a good answer to one POST on an event loop, empty if there is none: `send` says why.

        Nothing is repeated, and no redirect is followed.
        """
        if self._settings.is_plain and not self._seen.speaks_http:
            return {}
        target, began = quote(path), time.monotonic()
        reply = await post(f"/v1/{target}", self._headers(path, token), _json(body))
        if reply is None:
            return {}
        answer = Answer(HTTPStatus.OK, HTTPHeaderDict(reply.headers), reply.body)
        metrics.vault(metrics.status_class(answer.status), time.monotonic() - began)
        self._note("POST", target, answer, began)
        try:
            return understood(answer, path)
        except BrokerError:
            return {}

    def _require_no_tls(self) -> None:
        """Raise `UnclearError` if TLS answers at a plain address. It is looked at once."""
        if self._looked:
            return
        self._looked = True
        if _speaks_tls(self._settings.address):
            message = f"{self._settings.whereabouts} speaks TLS, and the address says http://; no secret was sent"
            raise UnclearError(message, hint=self._settings.hint_for("https")) from None

    def _send(self, method: str, path: str, body: Document | None, token: Secret[str] | None) -> Document:
        base = first = unix_socket.URL if self._settings.socket else self._settings.address
        for _ in range(_HOPS + 1):
            answer = self._counted(method, base, path, body, token)
            if answer.status not in _REDIRECTS:
                return understood(answer, path)
            base = _redirected(first, answer.headers.get("Location", ""), self._settings)
        raise PassingError("Vault's nodes redirect to each other", hint="is it electing a leader? try again")

    def _counted(self, method: str, base: str, path: str, body: Document | None, token: Secret[str] | None) -> Answer:
        began, status = time.monotonic(), "none"
        try:
            with _reached(path, self._settings):
                answer = self._exchange(method, base, path, body, token)
            status = metrics.status_class(answer.status)
            return answer
        finally:
            metrics.vault(status, time.monotonic() - began)

    def close(self) -> None:
        """Close the connections; the next request opens another."""
        self._hosts.clear()
        if "_pool" in self.__dict__:
            self._pool.clear()

    def _exchange(self, method: str, base: str, path: str, body: Document | None, token: Secret[str] | None) -> Answer:
        target, began = quote(path), time.monotonic()
        query = f"?{urlencode(body)}" if method == "GET" and body else ""
        response = self._connections(base).urlopen(
            method,
            f"/v1/{target}{query}",
            body=None if method == "GET" else _json(body or {}),
            headers=self._headers(path, token),
            timeout=min(self._settings.timeout, max(self._settings.patience, _SHORTEST)),
            retries=_ONCE,
            preload_content=False,
        )
        answer = Answer(response.status, response.headers, _whole(response))
        self._note(method, target, answer, began)
        return answer

    def _note(self, method: str, target: str, answer: Answer, began: float) -> None:
        _log_request(method, target, answer, time.monotonic() - began)
        self._seen.index = answer.headers.get(_INDEX, self._seen.index)
        self._seen.date, self._seen.ours = answer.headers.get("Date", ""), time.time()

    def _headers(self, path: str, token: Secret[str] | None) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "X-Vault-Request": "true", **trace.headers()}
        if token:
            headers["X-Vault-Token"] = token.reveal()
        if self._settings.namespace and path != SEAL_STATUS:
            headers["X-Vault-Namespace"] = self._settings.namespace
        if self._seen.index:
            headers |= {**_BEHIND, _INDEX: self._seen.index}
        return headers

    def _connections(self, base: str) -> HTTPConnectionPool:
        if base not in self._hosts:
            self._hosts[base] = self._pool.connection_from_url(base)
        return self._hosts[base]

    @cached_property
    def _pool(self) -> PoolManager:
        return new_pool(self._settings)


def _log_request(method: str, path: str, answer: Answer, seconds: float) -> None:
    if log.is_on(log.Level.DEBUG):
        named = _REQUEST_ID.search(answer.body[:200])
        facts = {"status": answer.status, "milliseconds": round(seconds * 1000)}
        log.debug("vault request", method=method, path=path, **facts, vault_request=named and named[1].decode())


def _speaks_tls(address: str) -> bool:
    context, parts = ssl.create_default_context(), urlsplit(address)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent through it
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), _GLANCE) as channel:
            channel.settimeout(_GLANCE)
            context.wrap_socket(channel, server_hostname=parts.hostname).close()
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False
    return True


def new_pool(settings: VaultSettings) -> PoolManager:
    """Return connections for all threads. They take nothing from the environment (no proxy, no .netrc), and no cookie.

    Raise `InputError` if a file of the settings is missing, or is reached by a link of another user.
    """
    _require_tls_files(settings)
    tls = {
        "ca_certs": settings.ca_file,
        "ca_cert_dir": None if settings.ca_file else settings.ca_directory,
        "cert_file": settings.client_certificate,
        "key_file": settings.client_key,
        "server_hostname": settings.server_name,
    }
    given: dict[str, Any] = {name: str(value) for name, value in tls.items() if value}
    pool = PoolManager(maxsize=_THREADS, cert_reqs="CERT_REQUIRED", **given)
    return unix_socket.connected_by(pool, settings.socket) if settings.socket else pool


def _require_tls_files(settings: VaultSettings) -> None:
    """Raise `InputError` if a file of the settings is missing, or is reached by a link of another user."""
    files = (settings.ca_file, settings.ca_directory, settings.client_certificate, settings.client_key)
    for path in filter(None, files):
        if not path.exists():
            raise InputError(f"{path}, for TLS to Vault, does not exist", hint="see: broker config show")
        with place(path, follow=True):  # refuses links of other users: the key is a login
            pass


def tls_context(settings: VaultSettings) -> ssl.SSLContext:
    """Return a context that verifies as the connections of `new_pool` do; raise `InputError` as it does."""
    _require_tls_files(settings)
    context = create_urllib3_context()
    if settings.ca_file or settings.ca_directory:
        context.load_verify_locations(settings.ca_file, None if settings.ca_file else settings.ca_directory)
    else:
        context.load_default_certs()
    if settings.client_certificate:
        context.load_cert_chain(settings.client_certificate, settings.client_key, password=lambda: b"")  # asks nobody
    return context


def _whole(response: BaseHTTPResponse) -> bytes:
    """Return the unpacked body of an answer. Its connection is used again if all was read. Raise `TooMuchError`."""
    body = bytearray()
    try:
        for piece in response.stream(_PIECE, decode_content=True):
            body += piece
            if len(body) > _LARGEST:
                raise TooMuchError
        response.release_conn()
    except UNREADABLE:
        raise ProtocolError from None
    finally:
        response.close()
    return bytes(body)


def _redirected(first: str, location: str, settings: VaultSettings) -> str:
    """Return the base URL of the node that a standby redirects to; raise `VaultUnavailableError` for others.

    The token travels with the request. So a redirect never leads from TLS to plain text. It leads to another host only
    if a private CA, which signs for this cluster alone, verifies that host.
    """
    old, new = urlsplit(first), urlsplit(location)
    private = old.scheme == "https" and (settings.ca_file or settings.ca_directory)
    trusted = new.hostname and (new.hostname == old.hostname or private)
    if settings.socket or new.scheme != old.scheme or not trusted:
        hint = "point VAULT_ADDR at the active node or a load balancer, or set VAULT_CACERT to the cluster's own CA"
        raise VaultUnavailableError("Vault redirects to a node that the broker does not trust", hint=hint)
    return f"{new.scheme}://{new.netloc}"


def _json(body: Document) -> bytes:
    return json.dumps(body, default=_bare).encode()


def _bare(value: Secret[str] | Mapping[str, Any]) -> Any:
    """Return a secret of a body for JSON. Up to here it is a `Secret`, so that no traceback shows it."""
    return value.reveal() if isinstance(value, Secret) else dict(value)


@contextmanager
def _reached(path: str, settings: VaultSettings) -> Iterator[None]:
    """Turn errors of urllib3 and the libraries below it into ours. Their text may quote a header: drop it."""
    vault = settings.whereabouts
    try:
        yield
    except SSLError as error:
        raise _tls_fault(error, path, settings) from None
    except TooMuchError:
        raise OversizedError(f"{vault} sends more for {path} than a Vault would", hint=NO_VAULT) from None
    except ValueError:  # an invalid header or URL
        hint = "token, namespace or address contains an invalid character"
        raise InputError("a request to Vault cannot be sent", hint=hint) from None
    except (OSError, HTTPError) as error:
        raise _not_reached(error, path, vault) from None


def _not_reached(error: Exception, path: str, vault: str) -> PassingError:
    hint = "is the address right, and is it up? broker config show names the source of each setting"
    return PassingError(f"{vault} was not reached for {path} ({type(error).__name__})", hint=hint)


def _tls_fault(error: Exception, path: str, settings: VaultSettings) -> VaultUnavailableError:
    """Return the error for a failed handshake. A connection closed within it may be a server that is away: retry."""
    found, vault = next((one for one in behind(error) if isinstance(one, ssl.SSLError)), error), settings.whereabouts
    if is_closed(found):
        return _not_reached(found, path, vault)
    if getattr(found, "reason", "") in _PLAIN:
        message = f"{vault} does not speak TLS, and the address says https://"
        return UnclearError(message, hint=settings.hint_for("http"))
    words = (getattr(found, "reason", "") or "for an unknown reason").replace("_", " ").lower()
    detail = getattr(found, "verify_message", "")
    return UnclearError(
        f"{vault}: TLS failed ({': '.join(filter(None, (words, detail)))})",
        hint="check VAULT_CACERT, VAULT_TLS_SERVER_NAME, VAULT_CLIENT_CERT, its key, the clock, and https://",
    )
