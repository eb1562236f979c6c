"""Requests to a vault's unix socket exactly as they are written: no library tidies the path before it leaves."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.model.secret import Secret

__all__ = ["RawVault", "Reply"]

_PATIENCE: Final = 60.0  # seconds
FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    body: bytes

    @property
    def refused(self) -> bool:
        """Return whether Vault said that the token may not."""
        return self.status == FORBIDDEN

    @property
    def json(self) -> Any:
        """The body as JSON, {} if it has none."""
        return json.loads(self.body or b"{}")


class RawVault:
    """A holder of `token` who may write anything on the wire."""

    def __init__(self, socket_path: Path, token: Secret[str]) -> None:
        self._connection = _Unix(socket_path)
        self._token = token

    def send(self, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send `METHOD target`; what does not begin with "/" stands under /v1/. Redirects are not followed."""
        written = target if target.startswith("/") else f"/v1/{target}"
        content = None if body is None else json.dumps(body)
        sent = {"X-Vault-Token": self._token.reveal(), **(headers or {})}
        try:
            self._connection.request(method, written, content, sent)
            answer = self._connection.getresponse()
            return Reply(answer.status, answer.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next request opens another
            raise

    def patch(self, target: str, body: object) -> Reply:
        """Send a JSON merge patch (RFC 7396)."""
        return self.send("PATCH", target, body, {"Content-Type": "application/merge-patch+json"})

    def close(self) -> None:
        self._connection.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)
