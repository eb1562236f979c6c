"""What a connection needs of a login."""

from __future__ import annotations

from typing import Protocol

from broker.model.secret import Secret

__all__ = ["TokenSource"]


class TokenSource(Protocol):
    """Where a connection's token comes from. Shared by threads."""

    def token(self) -> Secret[str]:
        """Return a token that should work, renewed ahead of time where it can be; raise `BrokerError`."""
        ...

    def replace(self, dead: Secret[str]) -> bool:
        """Take note that Vault rejects `dead`; return whether `token` will now give another."""
        ...

    def close(self) -> None:
        """Revoke the token if this source made it. Later calls of `token` may log in again."""
        ...
