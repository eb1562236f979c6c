"""HTTP Basic (RFC 7617): login and password."""

import base64
from collections.abc import Mapping

from broker.errors import InputError
from broker.model.authentication.interface import LOGIN, PASSWORD, Check, CurlOption, Part, Request, Values


class Basic(Part, frozen=True):
    """Add `Authorization: Basic`, in UTF-8 as curl sends it (RFC 7617, section 2.1)."""

    kind = "basic"

    @property
    def needs(self) -> Mapping[str, Check]:
        """The checks of login and password."""
        return {LOGIN: _check_login, PASSWORD: _check_password}

    def add(self, request: Request, values: Values) -> Request:
        """Add the header."""
        pair = f"{values.login}:{values.secret(PASSWORD).reveal()}".encode()
        return request.with_header("Authorization", "Basic " + base64.b64encode(pair).decode())

    def show(self, request: Request) -> Request:
        """Show the header without its value."""
        return request.with_header("Authorization", "Basic <base64 of login:password>")

    def curl(self, values: Values) -> tuple[CurlOption, ...]:
        """Return `--user`."""
        return (("user", f"{values.login}:{values.secret(PASSWORD).reveal()}"),)


def _check_login(login: str) -> InputError | None:
    """Return an error for a login with a colon or a control character (RFC 7617, section 2)."""
    if not login or ":" in login or not login.isprintable():
        return InputError(
            "the login cannot be sent by HTTP Basic: it is empty, or has a colon or a control character",
            hint="add the account with the login that the partner gave you",
        )
    return None


def _check_password(password: str) -> InputError | None:
    if not password or any(ord(c) < ord(" ") or ord(c) == 0x7F for c in password):  # noqa: PLR2004  # DEL
        return InputError("the password is empty, or has a control character", hint="set the password again")
    return None
