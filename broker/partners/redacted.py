"""A request as it would be sent, with a placeholder for every secret: for `broker explain` and a partner's support."""

from __future__ import annotations

import shlex
from typing import Final
from urllib.parse import urlsplit

from broker.model.authentication import Place
from broker.partners.request import Recipe, with_client_id

__all__ = ["as_curl", "as_http"]

BASIC: Final = "<base64 of login:password>"
CLIENT_ID: Final = "<client_id>"


def as_curl(recipe: Recipe) -> str:
    """Return a curl command that sends the request, once the placeholders are filled in."""
    words = ["curl", "--request", recipe.method, "--cacert", "ca.crt", "--cert", "tls.crt", "--key", "tls.key"]
    if recipe.authentication.basic:
        words += ["--user", "<login>:<password>"]
    for name, value in _headers(recipe, basic=False):
        words += ["--header", f"{name}: {value}"]
    lines = _paired([*map(shlex.quote, words), shlex.quote(_target(recipe))])
    return " \\\n  ".join(lines)


def as_http(recipe: Recipe) -> str:
    """Return the request line and headers as they go over the wire, after a handshake with the certificate."""
    parts = urlsplit(recipe.url)
    target = _target(recipe).removeprefix(f"{parts.scheme}://{parts.netloc}")
    target = target if target.startswith("/") else f"/{target}"
    lines = [f"{recipe.method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    return "\n".join(lines + [f"{name}: {value}" for name, value in _headers(recipe, basic=True)]) + "\n"


def _target(recipe: Recipe) -> str:
    return with_client_id(recipe.url, recipe.authentication, CLIENT_ID)


def _headers(recipe: Recipe, *, basic: bool) -> list[tuple[str, str]]:
    headers = list(recipe.headers)
    if basic and recipe.authentication.basic:
        headers.append(("Authorization", f"Basic {BASIC}"))
    place = recipe.authentication.client_id
    if place and place.place is Place.HEADER:
        headers.append((place.name, CLIENT_ID))
    return headers


def _paired(words: list[str]) -> list[str]:
    """Join each option with its value, so that a line of the command holds one of them."""
    lines = [words[0]]
    for word in words[1:]:
        if word.startswith("--") or lines[-1].count(" ") or not lines[-1].startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines
