"""Make requests for a partner, without secrets, and check that URLs are below the account's base URL.

Pure. `upstream` sends these requests, `broker explain` prints them with a placeholder for every secret, for the
partner's support; `model.authentication` adds the rest.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from broker.errors import InputError, RefusedError
from broker.model.authentication import Authentication, Request

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.ASCII)
_PATH_SAFE: Final = "/%:@!$&'()*+,;=-._~"  # RFC 3986 pchar; '%' keeps what is already encoded
_QUERY_SAFE: Final = _PATH_SAFE + "?"
_DECODINGS: Final = 4  # no honest path is encoded more often
_LARGEST_PORT: Final = 65535


def base_url(text: str) -> str:
    """Return `text` as a normalized base URL of an account; raise `InputError`.

    It is https, since the client certificate needs TLS. It has no user, query, fragment, dot segment or final slash,
    and its host is in lower case.
    """
    hint = "write it like https://api.example.com/v3"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InputError(f"{_shown(text)} is not a URL", hint=hint) from None
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise InputError(f"{_shown(text)} has characters that no URL may have", hint=hint)
    if parts.scheme != "https":
        raise InputError(f"{_shown(text)} is not https", hint="use https://: the client certificate needs TLS")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise InputError("a base URL has no user, no query and no fragment", hint=hint)
    host = parts.netloc.lower().removesuffix(f":{port}" if port is not None else ":")
    if not _HOST.fullmatch(host) or not (port is None or 0 < port <= _LARGEST_PORT):
        raise InputError(f"{_shown(text)} has no usable host", hint=hint)
    path = parts.path.rstrip("/")
    if path and not _stays(path):
        raise InputError(f"the path of {_shown(text)} has dot segments or empty ones", hint=hint)
    return f"https://{host}{'' if port in (None, 443) else f':{port}'}{path}"


def join(base: str, path: str) -> str:
    """Return the URL of `path` under `base`. `path` begins with one slash and may carry a query.

    Raise `RefusedError`, without quoting it, for a path that could leave `base`: absolute URLs, `//`, dot segments,
    backslashes and slashes in any encoding, control characters, fragments.
    """
    joined = _joined(base, path)
    if not joined:
        raise RefusedError(
            "the path is not below the account's base URL",
            hint="write it without host, dot segments or fragment, like /fleets?pageSize=10",
        )
    return joined


def inside(base: str, url: str) -> str:
    """Return `url` if it is below `base`, as a partner's link may be; raise `RefusedError` without quoting it."""
    root = base + "/"
    if url == base or (url.startswith(base + "?") and url.isprintable()):
        return url
    joined = _joined(base, "/" + url[len(root) :]) if url.startswith(root) else ""
    if not joined:
        raise RefusedError(
            "a URL or a link of the partner is not below the account's base URL",
            hint="secrets are sent to the base URL of their account and nowhere else",
        )
    return joined


def recipe(
    base: str, authentication: Authentication, method: str, path: str, query: Iterable[tuple[str, str]] = ()
) -> Request:
    """Return the request for `method` and `path`, with `query` added to what `path` carries.

    Client certificate and authentication are added later. Raise `RefusedError` if `path` could leave `base`,
    `InputError` for an unknown method.
    """
    if method not in METHODS:
        raise InputError(f"{_shown(method)} is not a known method", hint=f"use one of {', '.join(METHODS)}")
    target, _, given = join(base, path).partition("?")
    added = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query)
    whole = "&".join(part for part in (given, added) if part)
    return Request(method, f"{target}?{whole}" if whole else target, {"Accept": authentication.accept})


@lru_cache(maxsize=256)  # a program asks for the same few paths, and this is most of a session's own time
def _joined(base: str, path: str) -> str:
    """Return the URL of `path` under `base`; "" if `path` could leave it."""
    route, mark, query = path.partition("?")
    if not route.startswith("/") or not _stays(route) or "#" in path or not path.isprintable():
        return ""
    return f"{base}{quote(route, safe=_PATH_SAFE)}{mark}{quote(query, safe=_QUERY_SAFE)}"


def _stays(route: str) -> bool:
    """Return whether a path, however often it is decoded, has no dot segment, and no empty one except the last."""
    for _ in range(_DECODINGS):
        if not route.isprintable() or "\\" in route:
            return False
        segments = [segment.split(";")[0] for segment in route.split("/")[1:]]
        if any(segment in (".", "..") for segment in segments) or "" in segments[:-1]:
            return False
        decoded = unquote(route)
        if decoded.count("/") != route.count("/"):
            return False
        if decoded == route:
            return True
        route = decoded
    return False


def _shown(text: str) -> str:
    return repr(text[:120])


def as_curl(request: Request, authentication: Authentication) -> str:
    """Return a curl command that sends the request, after the placeholders are filled in.

    A part that has no fixed option, such as a signature, is shown as the headers that it adds.
    """
    lines = ["curl", f"--request {request.method}", "--cacert ca.crt", "--cert tls.crt", "--key tls.key"]
    lines += [_option("header", f"{name}: {value}") for name, value in request.headers.items()]
    lines += [_option(*option) for option in _options(request, authentication)]
    return " \\\n  ".join([*lines, shlex.quote(request.url)])


def as_http(request: Request, authentication: Authentication) -> str:
    """Return request line, headers and body as they are sent after the TLS handshake."""
    shown = authentication.shown(request)
    lines = [f"{shown.method} {shown.target} HTTP/1.1", f"Host: {shown.host}"]
    lines += [f"{name}: {value}" for name, value in shown.headers.items()]
    return "\n".join([*lines, *(["", (shown.body or b"").decode()] if shown.body else [])]) + "\n"


def _options(request: Request, authentication: Authentication) -> Iterator[tuple[str, str]]:
    for part in authentication.parts:
        options, shown = part.curl(authentication.placeholders), part.show(request)
        if options is None:
            options = tuple(("header", f"{n}: {v}") for n, v in shown.headers.items() if request.headers.get(n) != v)
        yield from options


def _option(name: str, value: str) -> str:
    return f"--{name} {shlex.quote(value)}" if value else f"--{name}"
