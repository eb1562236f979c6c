"""A token that exists already: from the environment, a file, or Vault's own token helper."""

from __future__ import annotations

from pathlib import Path

from broker.errors import DeniedError, InputError
from broker.model.secret import Secret
from broker.paths import read_file

__all__ = ["FileToken", "FixedToken"]


class FixedToken:
    """A token given by value. It is neither renewed nor revoked."""

    def __init__(self, token: Secret[str]) -> None:
        self._token = token

    def token(self) -> Secret[str]:
        """Return it."""
        return self._token

    def replace(self, dead: Secret[str]) -> bool:  # noqa: ARG002  # TokenSource's signature
        """Return False: there is no other."""
        return False

    def close(self) -> None:
        """Leave it as it is."""


class FileToken:
    """A token in a file that another program renews, such as Vault agent's sink or `~/.vault-token`.

    Read when first needed, and again when Vault rejects it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token: Secret[str] | None = None

    def token(self) -> Secret[str]:
        """Return the file's token; raise `DeniedError` if there is no file, `InputError` if it has no token."""
        if self._token is None:
            self._token = self._read()
        return self._token

    def replace(self, dead: Secret[str]) -> bool:
        """Read the file again."""
        self._token = self._read()
        return self._token != dead

    def close(self) -> None:
        """Leave the file and its token as they are."""

    def _read(self) -> Secret[str]:
        try:
            text = read_file(self._path).decode("ascii").strip()
        except FileNotFoundError:
            raise DeniedError(f"no token for Vault: {self._path} does not exist", hint="log in: bao login") from None
        except (OSError, ValueError):
            raise InputError(f"no token can be read from {self._path}") from None
        if not text or not text.isprintable():
            raise InputError(f"{self._path} holds no token")
        return Secret(text)
