"""Where a connection gets its token. The logins are in `logins`."""

from broker.model.secret import Secret


class TokenSource:
    """Source of a connection's token. Shared by threads."""

    def token(self) -> Secret[str]:
        """Return a token that should be valid, renewed in time if possible; raise `BrokerError`."""
        raise NotImplementedError

    def at_hand(self) -> Secret[str] | None:
        """Return the token if `token` would return it without a wait or a request; None if it might not."""
        return None

    def replace(self, dead: Secret[str]) -> bool:  # noqa: ARG002  # here there is no other
        """Drop `dead`, which Vault rejects; return whether `token` will now return another."""
        return False

    def ends(self) -> float | None:
        """Return when the token ends unless it is renewed, in Unix time; None if that is unknown."""
        return None

    def close(self) -> None:
        """Revoke the token if this source made it. Later calls of `token` may log in again."""
