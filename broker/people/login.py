"""Logins at mail servers by SASL: a password, or a token that is fetched for each connection."""

from collections.abc import Callable, Collection
from enum import Enum
from typing import TypeVar

from msgspec import Struct

from broker.errors import DeniedError
from broker.model.secret import Secret

T = TypeVar("T")


class Auth(Enum):
    """How to log in. Values are those of the setting `auth`."""

    PASSWORD = "password"  # noqa: S105  # the word, not one
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"


class WrongLoginError(DeniedError):
    """The mail server, or the server of its tokens, rejected the login."""


class Sasl(Struct, frozen=True):
    """One exchange. `lines` are sent in turn, before base64; the first one with the command if `initial`."""

    mechanism: str
    lines: tuple[Secret[bytes], ...]
    secrets: tuple[Secret[str], ...]  # to be hidden in what the server answers
    initial: bool = True


class Login(Struct, frozen=True):
    """A login. `secret` returns the password, or a new token each time; it may raise `BrokerError`."""

    user: str
    auth: Auth
    secret: Callable[[], Secret[str]]

    def sasl(self, host: str, port: int, offered: Collection[str] = ("PLAIN",)) -> Sasl:
        """Return what logs in at this server, with a new token. Sources: RFC 4616, RFC 7628, Google's XOAUTH2."""
        given = self.secret()
        secret = given.reveal()
        bearer = f"\1auth=Bearer {secret}\1\1"
        match self.auth:
            case Auth.XOAUTH2:  # the second line answers a challenge that says what is wrong
                return _sasl(given, "XOAUTH2", f"user={self.user}{bearer}", "")
            case Auth.OAUTHBEARER:
                user = self.user.replace("=", "=3D").replace(",", "=2C")
                return _sasl(given, "OAUTHBEARER", f"n,a={user},\1host={host}\1port={port}{bearer}", "\1")
            case Auth.PASSWORD if "PLAIN" not in offered and "LOGIN" in offered:
                return _sasl(given, "LOGIN", self.user, secret, initial=False)
            case Auth.PASSWORD:
                return _sasl(given, "PLAIN", f"\0{self.user}\0{secret}")

    def with_new_token(self, act: Callable[[], T]) -> T:
        """Call `act`, which connects and logs in; if its token was rejected, once more with a new one."""
        if self.auth is Auth.PASSWORD:
            return act()
        try:
            return act()
        except WrongLoginError:
            return act()

    def rejected(self, server: object, name: str, detail: str = "") -> WrongLoginError:
        """Return the error for a login that the server of `[mail.name]` rejected."""
        hint = f"broker mail set {name} stores another password"
        if self.auth is not Auth.PASSWORD:
            hint = "check client_id and scope under [mail.oauth], and that the client may use this mailbox"
        return WrongLoginError(f"{server} rejected the login of {self.user}{detail and f': {detail}'}", hint=hint)


def _sasl(given: Secret[str], mechanism: str, *lines: str, initial: bool = True) -> Sasl:
    secrets = (given, *(Secret(line) for line in lines if initial and line))
    return Sasl(mechanism, tuple(Secret(line.encode()) for line in lines), secrets, initial)
