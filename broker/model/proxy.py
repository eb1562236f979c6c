"""A forward proxy on the way to the partner."""

from contextlib import suppress
from urllib.parse import urlsplit

from msgspec import Struct

from broker.errors import InputError
from broker.model.secret import Secret


class Proxy(Struct, frozen=True):
    """A forward proxy that is asked for a connection by HTTP CONNECT (RFC 9110, section 9.3.6)."""

    host: str
    port: int
    login: Secret[str] | None = None  # "user:password", for HTTP Basic


def proxy_of(url: str, login: str = "") -> Proxy:
    """Return the proxy at `url`, such as http://proxy.example:3128; raise `InputError`, which shows no login."""
    if login and (":" not in login or not login.isprintable()):
        raise InputError("the login of the proxy is not usable", hint="write it like USER:PASSWORD, in one line")
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname and not parts.path.strip("/") and not set("@?#") & set(url):
            return Proxy(parts.hostname, parts.port or 80, Secret(login) if login else None)
    raise InputError("the proxy is not a usable URL", hint="write it like http://proxy.example:3128, without a login")
