"""A whole set, ready to be used in a call."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from broker.errors import InputError, RefusedError
from broker.model.authentication import Authentication, Request, Values
from broker.model.bundle import Bundle
from broker.model.redactor import Redactor
from broker.model.secret import Secret
from broker.partners import request
from broker.pki.tls import client_context

__all__ = ["Credentials", "credentials_of"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """One generation's set. Raise `InputError` for what no header can carry, without saying what it was.

    `context` is built for this generation, verifies the server, and is never changed. Raise `RefusedError` for one
    that does not verify.
    """

    base_url: str  # the only place the secrets travel to
    context: ssl.SSLContext
    login: str = field(repr=False)
    secrets: Mapping[str, Secret[str]]  # by name; "password" is one
    client_id: str = field(repr=False)
    authentication: Authentication = field(default_factory=Authentication)

    def __post_init__(self) -> None:
        if request.base_url(self.base_url) != self.base_url:
            raise InputError(f"the base URL is not in its one spelling: {request.base_url(self.base_url)}")
        if self.context.verify_mode is not ssl.CERT_REQUIRED or not self.context.check_hostname:
            raise RefusedError("the TLS context does not verify the server", hint="make it with pki.tls.client_context")
        self.authentication.check(self._values)

    def signed(self, request: Request) -> Request:
        """Return a copy of `request` with all that the partner wants in it. Add it last; nobody else may see it."""
        return self.authentication.signed(request, self._values)

    def headers(self) -> dict[str, str]:
        """Return the headers that carry secrets, for HTTP clients that are not ours.

        Raise `RefusedError` if they differ in each request, as signatures do: use a `PartnerSession` then.
        """
        if any(part.curl(self._values) is None for part in self.authentication.parts):
            raise RefusedError("this partner wants other headers in each request", hint="use broker.client.open")
        return dict(self.signed(Request("GET", self.base_url)).headers)

    def redactor(self) -> Redactor:
        """Return what hides the secrets of this set in a text that the partner wrote."""
        return Redactor([*self._hidden(), Secret(self.client_id)])

    def _hidden(self) -> Iterator[Secret[str]]:
        for secret in self.secrets.values():
            yield secret
            yield Secret(base64.b64encode(f"{self.login}:{secret.reveal()}".encode()).decode())

    @property
    def _values(self) -> Values:
        return Values(self.login, self.client_id, self.secrets)


def credentials_of(bundle: Bundle) -> Credentials:
    """Return `bundle` ready for calls, with a TLS context of its own. Raise what `client_context` raises."""
    return Credentials(
        base_url=bundle.base_url,
        context=client_context(bundle.key, bundle.certificate.pem, bundle.trust.pem),
        login=bundle.login,
        secrets=bundle.secrets,
        client_id=bundle.client_id,
        authentication=bundle.authentication,
    )
