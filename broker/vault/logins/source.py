"""Interface of a login."""

from __future__ import annotations

from typing import Protocol

from broker.model.secret import Secret

__all__ = ["TokenSource"]


class TokenSource(Protocol):
    """Source of a connection's token. Shared by threads."""

    def token(self) -> Secret[str]:
        """Return a token that should be valid, renewed in time if possible; raise `BrokerError`."""
        ...

    def replace(self, dead: Secret[str]) -> bool:
        """Drop `dead`, which Vault rejects; return whether `token` will now return another."""
        ...

    def close(self) -> None:
        """Revoke the token if this source made it. Later calls of `token` may log in again."""
        ...
