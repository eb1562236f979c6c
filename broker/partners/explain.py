"""Render a request with a placeholder for every secret: for `broker explain` and the partner's support."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from broker.model.authentication import Authentication, Request

__all__ = ["as_curl", "as_http"]


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
