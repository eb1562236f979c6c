"""A whole set, ready to be used in a call."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field

from broker.errors import InputError, RefusedError
from broker.model.authentication import Authentication, Place
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
    password: Secret[str]
    client_id: str = field(repr=False)
    authentication: Authentication = field(default_factory=Authentication)

    def __post_init__(self) -> None:
        if request.base_url(self.base_url) != self.base_url:
            raise InputError(f"the base URL is not in its one spelling: {request.base_url(self.base_url)}")
        if self.context.verify_mode is not ssl.CERT_REQUIRED or not self.context.check_hostname:
            raise RefusedError("the TLS context does not verify the server", hint="make it with pki.tls.client_context")
        if self.authentication.basic:
            _require_basic(self.login, self.password)
        if self.authentication.client_id and not _is_token(self.client_id):
            raise InputError("the client_id is empty, or has characters that no client_id has", hint="broker app set")

    @property
    def basic(self) -> Secret[str]:
        """The value of the Authorization header: UTF-8, as curl sends it (RFC 7617, section 2.1)."""
        pair = f"{self.login}:{self.password.reveal()}".encode()
        return Secret("Basic " + base64.b64encode(pair).decode())

    def headers(self) -> dict[str, str]:
        """Return the headers that carry secrets. The caller adds them last, to a copy nobody else sees."""
        found = {"Authorization": self.basic.reveal()} if self.authentication.basic else {}
        place = self.authentication.client_id
        if place and place.place is Place.HEADER:
            found[place.name] = self.client_id
        return found

    def redactor(self) -> Redactor:
        """Return what hides the secrets of this set in a text that the partner wrote."""
        pair = Secret(self.basic.reveal().removeprefix("Basic "))
        return Redactor([self.password, pair, Secret(self.client_id)])


def credentials_of(bundle: Bundle) -> Credentials:
    """Return `bundle` ready for calls, with a TLS context of its own. Raise what `client_context` raises."""
    return Credentials(
        base_url=bundle.base_url,
        context=client_context(bundle.key, bundle.certificate.pem, bundle.trust.pem),
        login=bundle.login,
        password=bundle.password,
        client_id=bundle.client_id,
        authentication=bundle.authentication,
    )


def _require_basic(login: str, password: Secret[str]) -> None:
    """RFC 7617, section 2: no colon in the user-id, no control character in either."""
    if not login or ":" in login or not login.isprintable():
        raise InputError(
            "the login is empty, or has a colon or a control character",
            hint="add the account anew with its right login",
        )
    if not _is_sayable(password):
        raise InputError("the password is empty, or has a control character", hint="set it again: broker password set")


def _is_sayable(password: Secret[str]) -> bool:
    value = password.reveal()
    return bool(value) and not any(ord(c) < ord(" ") or ord(c) == 0x7F for c in value)  # noqa: PLR2004  # DEL


def _is_token(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text
