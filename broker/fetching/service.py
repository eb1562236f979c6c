"""Fetch bundles from `broker serve`. Only this program's identity is sent, and nothing from its environment."""

import http.client
import json
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct, convert

from broker.copies import replace
from broker.errors import (
    BrokerError,
    ConflictError,
    DeniedError,
    InputError,
    RateError,
    RefusedError,
    VaultUnavailableError,
    WaitingError,
)
from broker.model.bundle import Bundle, Granted, Wanted
from broker.model.duration import duration_text
from broker.model.lease import Caller, Consumer, Lease, OwnLease
from broker.model.secret import Secret
from broker.model.waiting import Ended, Event
from broker.network import FAULTS, service_address
from broker.partners.authentication import authentication_of
from broker.typed import typed

_CONNECT: Final = 5.0  # seconds
_READ: Final = 10.0  # seconds for each read; a holder of files acts on no signal meanwhile
_WAIT: Final = 60.0  # the same of a wait, which sends a blank every 20
_LARGEST: Final = 1024 * 1024  # bytes of an answer
_SUCCESS: Final = 2  # the first digit of the status
_ROUNDED: Final = timedelta(minutes=1)  # the service rounds ends down
Found = TypeVar("Found")
_NUMBER: Final = re.compile(r"[0-9a-f]{1,32}")
_ERRORS: Final[Mapping[str, type[BrokerError]]] = {
    "input": InputError,
    "denied": DeniedError,
    "refused": RefusedError,
    "waiting": WaitingError,
    "conflict": ConflictError,
    "rate": RateError,
}


class Application(Struct, frozen=True):
    """An application that a consumer may use: `state` is ready, suspended, expired, or pending without a generation."""

    account: str
    application: str
    state: str
    generation: int | None
    not_after: datetime | None


class Service:
    """The use-cases of the service at `address`, for one caller, whose identity is asked for with each request.

    Raise `InputError` for an address that would send secrets without TLS to another host.
    """

    def __init__(self, address: str, caller: Callable[[], Caller], ca_file: Path | None = None) -> None:
        self._address = service_address(address)
        self._caller = caller
        if ca_file and not ca_file.is_file():
            raise InputError(f"{ca_file}, the CA of the broker, is not a file", hint="BROKER_CACERT=PATH, a PEM file")
        self._prefix = "" if self._address.startswith("unix:") else urlsplit(self._address).path
        self._keys: dict[Wanted, str] = {}  # of bundles that were asked for, and did not arrive
        if self._address.startswith("https:"):
            self._context = _context(ca_file)

    @property
    def renews(self) -> bool:
        """True: a bundle is held as long as the service renews its lease."""
        return True

    def grant(self, wanted: Wanted) -> Granted:
        """Return a bundle, as `issuing.grant.Issuer.grant` does.

        A bundle whose answer was lost is asked for by the same key again, so that there is one lease, to be given back.
        """
        key = self._keys.setdefault(wanted, wanted.idempotency_key or os.urandom(16).hex())
        of = {"account": wanted.account, "application": wanted.application, "kind": wanted.kind.value}
        asked = _Asked("/v1/bundles", {**of, "ttl": duration_text(wanted.ttl)}, key=key)
        granted = self._ask(asked, partial(_granted, wanted))
        self._keys.pop(wanted, None)
        return granted

    def give_back(self, granted: Granted) -> None:
        """Revoke the lease."""
        self._ask(_Asked("/v1/leases/revoke", lease=granted.lease_text), lambda _: None)

    def renew(self, wanted: Wanted, granted: Granted) -> Granted:
        """Return the bundle with a later end, or a new one if there is a newer or its lease was renewed to the last.

        Return `granted` itself if that ends as late: at the end of the certificate.
        """
        try:
            renewed, newer = self.extend(wanted, granted)
        except RefusedError:  # such as for a generation that was retired; `grant` says if nothing is issued
            return self.grant(wanted)
        goes_on = renews_further(renewed.lease, granted.bundle.not_after)
        if not newer and (goes_on or renewed.lease.expires > granted.lease.expires):
            return renewed
        fresh = self.grant(wanted)
        if fresh.lease.generation != granted.lease.generation or fresh.lease.expires > granted.lease.expires:
            return fresh
        self.give_back(fresh)
        return granted

    def extend(self, wanted: Wanted, granted: Granted) -> tuple[Granted, int | None]:
        """Return the same bundle with a later end, and the current generation if it is another one."""
        asked = _Asked("/v1/leases/renew", {"ttl": duration_text(wanted.ttl)}, granted.lease_text)
        return self._ask(asked, partial(_renewed, granted))

    def wait(self, granted: Granted) -> Ended:
        """Wait at the service, for some minutes at most."""
        lease = granted.lease
        of = {"account": lease.account, "application": lease.application}
        asked = _Asked("/v1/wait", {**of, "generation": lease.generation}, granted.lease_text, read=_WAIT)
        return self._ask(asked, lambda answer: Ended(Event(answer["event"]), answer["generation"]))

    def applications(self) -> list[Application]:
        """Return the applications that the caller has a right to."""
        return self._ask(_Asked("/v1/accounts"), lambda answer: typed(answer["applications"], list[Application]))

    def application(self, account: str, application: str) -> Application | None:
        """Return one of `applications`, None without a right to it."""
        found = (one for one in self.applications() if (one.account, one.application) == (account, application))
        return next(found, None)

    def leases(self) -> list[OwnLease]:
        """Return the leases of the caller that have not ended."""
        return self._ask(_Asked("/v1/leases"), lambda answer: typed(answer["leases"], list[OwnLease]))

    def revoke(self, one: OwnLease) -> None:
        """End a lease by its id; other leases that share its holding stay."""
        named = {"lease_id": one.lease_id, "account": one.account, "application": one.application}
        self._ask(_Asked("/v1/leases/revoke", named), lambda _: None)

    def _ask(self, asked: "_Asked", read: Callable[[Any], Found]) -> Found:
        """Return what `read` makes of the answer."""
        found = self._answered(asked, self._caller(), read)
        if isinstance(found, BrokerError):
            raise found  # no frame of it holds the identity, the lease or the answer: error trackers keep variables
        return found

    def _answered(self, asked: "_Asked", caller: Caller, read: Callable[[Any], Found]) -> Found | BrokerError:
        """Return what `read` makes of the answer, or an error. Each exchange has a connection of its own."""
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.settimeout(asked.read)
            connection.request(asked.method, f"{self._prefix}{asked.path}", asked.body(), asked.headers(caller))
            answer = connection.getresponse()
            data = answer.read(_LARGEST + 1)
        except FAULTS as error:
            reason, hint = _fault(error)
            return VaultUnavailableError(f"the broker at {self._address} cannot be used: {reason}", hint=hint)
        finally:
            connection.close()
        try:
            found = json.loads(data) if answer.status != http.client.NO_CONTENT else None
            if answer.status // 100 == _SUCCESS:
                return read(found)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return self._unusable()
        return self._refused(found, answer.headers.get("x-request-id", ""))

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._address)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=_CONNECT, context=self._context)
        return http.client.HTTPConnection(parts.netloc, timeout=_CONNECT)

    def _refused(self, problem: Any, number: str) -> BrokerError:
        if not isinstance(problem, dict) or not isinstance(problem.get("detail"), str):
            return self._unusable()
        kind = _ERRORS.get(str(problem.get("code")), VaultUnavailableError)
        request = f" (request {number})" if _NUMBER.fullmatch(number) else ""
        return kind(f"the broker: {problem['detail']}{request}", hint=str(problem.get("hint") or ""))

    def _unusable(self) -> BrokerError:
        return VaultUnavailableError(f"{self._address} does not answer as a broker does", hint="check BROKER_ADDR")


def renews_further(lease: Lease, not_after: datetime) -> bool:
    """Return whether a renewal can give `lease`, for a certificate that ends at `not_after`, a later end."""
    return lease.expires < min(lease.renewable_until, not_after) - _ROUNDED


def _fault(error: Exception) -> tuple[str, str]:
    """Return why there is no answer, and what to check."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})", "check BROKER_CACERT, and BROKER_ADDR"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS as we do", "check BROKER_ADDR: is it http:// on loopback?"
    if isinstance(error, TimeoutError):
        return "no answer in time", "try again, since its Vault may be away; if it stays so, check BROKER_ADDR"
    return "no answer", "check BROKER_ADDR"


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise InputError(
            f"{ca_file}, the CA of the broker, is not PEM", hint="BROKER_CACERT=PATH, a PEM file"
        ) from None


class _UnixConnection(http.client.HTTPConnection):
    """A connection to the socket at `path`, with "localhost" in Host."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_CONNECT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Asked(Struct, frozen=True):
    """A request to the service: a POST of `message` and `lease`, or a GET without them."""

    path: str
    message: Mapping[str, str | int] = MappingProxyType({})
    lease: Secret[str] | None = None
    read: float = _READ
    key: str = ""  # requests with the same one are the same

    @property
    def method(self) -> str:
        """GET or POST."""
        return "POST" if self.message or self.lease else "GET"

    def body(self) -> bytes | None:
        """Return the message with the lease."""
        lease = {"lease": self.lease.reveal()} if self.lease else {}
        return json.dumps({**self.message, **lease}).encode() if self.method == "POST" else None

    def headers(self, caller: Caller) -> dict[str, str]:
        """Return the headers, among them the one that shows the identity."""
        text = caller.credential.reveal()
        shown = {"Authorization": f"Bearer {text}"} if caller.is_jwt else {"X-Vault-Token": text}
        key = {"Idempotency-Key": self.key} if self.key else {}
        return {**key, **shown, "Content-Type": "application/json"}


def _renewed(granted: Granted, answer: Any) -> tuple[Granted, int | None]:
    expires = convert(answer["expires"], datetime)
    renewed = replace(
        granted,
        bundle=replace(granted.bundle, expires=expires),
        lease=replace(granted.lease, expires=expires),
        lease_text=Secret(answer["lease"]),
    )
    return renewed, answer["newer"]


def _pem(text: str) -> str:
    if not text.startswith("-----BEGIN "):
        raise ValueError
    return text


def _granted(wanted: Wanted, answer: Any) -> Granted:
    expires = convert(answer["expires"], datetime)
    bundle = Bundle(
        account=wanted.account,
        application=wanted.application,
        generation=int(answer["generation"]),
        base_url=answer["base_url"],
        client_id=answer["client_id"],
        login=answer["login"],
        secrets={name: Secret(text) for name, text in answer["secrets"].items()},
        key=Secret(_pem(answer["key"]).encode()),
        certificate=_pem(answer["certificate"]),
        not_after=convert(answer["not_after"], datetime),
        trust=_pem(answer["trust"]),
        lease_id=answer["lease_id"],
        expires=expires,
        authentication=authentication_of(answer["authentication"]),
    )
    issued = convert(answer["issued"], datetime)
    lease = Lease(
        bundle.lease_id,
        "",  # the service knows our entity
        wanted.account,
        wanted.application,
        wanted.kind,
        bundle.generation,
        issued,
        expires,
    )
    return Granted(bundle, Consumer("", ""), lease, Secret(answer["lease"]))
