"""Credentials: one generation's set, ready for calls."""

import base64
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urljoin

from broker.errors import BrokerError, InputError, RefusedError
from broker.model.authentication import Authentication, Request, Values
from broker.model.bundle import Bundle
from broker.model.proxy import Proxy
from broker.model.redactor import Redactor
from broker.model.secret import Secret
from broker.partners import request
from broker.pki.tls import client_context

_ORIGIN: Final = re.compile(r"\w+://[^/?#]*")
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Credentials:
    """One generation's set. Raise `InputError`, without the value, for one that no request can carry.

    `context` is built for this generation, verifies the server, and is never changed. Raise `RefusedError` for one that
    does not verify.
    """

    base_url: str  # the only place that the secrets are sent to
    context: ssl.SSLContext
    login: str = field(repr=False)
    secrets: Mapping[str, Secret[str]]  # by name; "password" is one
    client_id: str = field(repr=False)
    authentication: Authentication = field(default_factory=Authentication)
    proxy: Proxy | None = None  # the way to the partner, if there is none without
    not_after: datetime = _NEVER  # of the certificate: no connection is kept beyond it

    def __post_init__(self) -> None:
        if request.base_url(self.base_url) != self.base_url:
            raise InputError(f"the base URL is not normalized: write {request.base_url(self.base_url)}")
        if self.context.verify_mode is not ssl.CERT_REQUIRED or not self.context.check_hostname:
            raise RefusedError("the TLS context does not verify the server", hint="make it with pki.tls.client_context")
        self.authentication.check(self._values)

    def has_expired(self, now: datetime) -> bool:
        """Return whether the certificate has ended."""
        return now >= self.not_after

    def signed(self, request: Request) -> Request:
        """Return a copy of `request` with the authentication. Do this last: no hook or log may see the copy.

        Raise `RefusedError` for a `Host` header of another host, which a shared front end would pass the secrets on to.
        """
        if any(name.lower() == "host" and value != request.host for name, value in request.headers.items()):
            raise RefusedError("the Host header cannot be chosen: it is the base URL's", hint="leave it out")
        return self.authentication.signed(request, self._values)

    def target(self, url: str) -> str:
        """Return the URL of a request to `url`, a path below the base URL or a URL there, without our client_id.

        Raise `RefusedError` for any other URL, and for another client_id.
        """
        if url.startswith("/"):
            found = request.join(self.base_url, url)
        else:
            origin = _ORIGIN.match(url)  # in lower case, as the base URL
            found = request.inside(self.base_url, origin[0].lower() + url[origin.end() :] if origin else url)
        return self.authentication.bare(Request("GET", found), self._values).url

    def link(self, href: str, here: str) -> str:
        """Return the URL of a link in the answer to `here`; raise `RefusedError` unless it is below the base URL."""
        try:
            found = urljoin(here, href).partition("#")[0]
        except ValueError:
            found = ""
        return self.target(found)

    def headers(self) -> dict[str, str]:
        """Return the headers that carry secrets, for other HTTP clients.

        Raise `RefusedError` if they differ in each request, as signatures do: use a `PartnerSession` then.
        """
        if any(part.curl(self._values) is None for part in self.authentication.parts):
            raise RefusedError("this partner wants different headers in each request", hint="use broker.client.open")
        return dict(self.signed(Request("GET", self.base_url)).headers)

    def redactor(self) -> Redactor:
        """Return a redactor that hides the secrets of this set in text of the partner."""
        pairs = (f"{self.login}:{secret.reveal()}".encode() for secret in self.secrets.values())
        basic = (Secret(base64.b64encode(pair).decode()) for pair in pairs)
        return Redactor([*self.secrets.values(), *basic, Secret(self.client_id)])

    def redacted(self, error: BrokerError) -> BrokerError:
        """Return `error` without its frames, and without the secrets of this set."""
        return type(error)(self.redactor().redact(error.message), hint=error.hint)

    @property
    def _values(self) -> Values:
        return Values(self.login, self.client_id, self.secrets)


def credentials_of(bundle: Bundle, proxy: Proxy | None) -> Credentials:
    """Return the credentials in a bundle; `proxy` is the way to the partner."""
    return Credentials(
        base_url=bundle.base_url,
        context=client_context(Secret(bundle.key.reveal() + bundle.certificate.encode()), bundle.trust),
        login=bundle.login,
        secrets=bundle.secrets,
        client_id=bundle.client_id,
        authentication=bundle.authentication,
        proxy=proxy,
        not_after=bundle.not_after,
    )
