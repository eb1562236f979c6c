"""Calls to the desk of a stand-in in another process."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

PATIENCE: Final = 10.0  # seconds
FIRST_ERROR: Final = 400


class RemoteError(Exception):
    """The desk cannot be reached, or refused with this message."""


def ask(desk_url: str, method: str, path: str, document: Any = None) -> Any:
    """Send `document` as JSON to the desk and return its JSON, None for an empty answer. Raise `RemoteError`."""
    url = urlsplit(desk_url)
    if url.scheme != "http" or not url.hostname:
        raise RemoteError(f"{desk_url!r} is not the address of a desk: use http://127.0.0.1:PORT")
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=PATIENCE)
    try:
        connection.request(method, path, None if document is None else json.dumps(document))
        response = connection.getresponse()
        answer = json.loads(response.read() or b"null")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RemoteError(f"no desk answers at {desk_url}: {type(error).__name__}") from error
    finally:
        connection.close()
    if response.status >= FIRST_ERROR:
        raise RemoteError(str(answer.get("error", "the desk refused")))
    return answer


def running(directory: Path) -> str | None:
    """Return the desk's address if a stand-in serves from `directory`, else None."""
    try:
        desk_url = str(json.loads((directory / "standin.json").read_text())["desk_url"])
        ask(desk_url, "GET", "/desk/accounts")
    except (OSError, ValueError, KeyError, RemoteError):
        return None
    return desk_url
