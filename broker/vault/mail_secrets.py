"""Secrets for mail servers in Vault's KV: numbered, written once; the newest counts, and those before are destroyed."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from broker.errors import ConflictError, InputError
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import decoded, enveloped

_TRIES: Final = 4


class VaultMailSecrets:
    """The password of each mail server, and the client secret for tokens."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def store(self, name: str, secret: Secret[str]) -> int:
        """Store `secret` under the next number, destroy those before, and return the number.

        A number that is taken by then was written by another command, or by this one, if its answer was lost: the next
        is used. Raise `ConflictError` if that goes on.
        """
        for _ in range(_TRIES):
            taken = self.numbers(name)
            number = max(taken, default=0) + 1
            with suppress(ConflictError):
                self._vault.create(layout.mail_secret(name, number), enveloped({"secret": secret}))
                break
        else:
            raise ConflictError(
                f"others store secrets for {_table_of(name)}", hint=f"broker mail set {name} stores it again"
            )
        for path in (layout.mail_secret(name, older) for older in taken):
            if any(self._vault.versions(path).values()):
                self._vault.destroy_all(path)
        return number

    def newest(self, name: str) -> Secret[str]:
        """Return the secret that was stored last; raise `InputError` if there is none."""
        number = max(self.numbers(name), default=0)
        if not number:
            message = f"no secret is stored for {_table_of(name)}"
            raise InputError(message, hint=f"broker mail set {name}")
        where = f"secret {number} of {_table_of(name)}"
        return Secret(decoded(self._vault.read(layout.mail_secret(name, number)).data, _Stored, where).secret)

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of the secrets that were stored, the destroyed ones too."""
        listed = self._vault.list(layout.mail_secrets(name))
        return [int(entry) for entry in listed if entry.isascii() and entry.isdecimal()]


def _table_of(name: str) -> str:
    """Return the table of broker.toml that the secret `name` belongs to."""
    return "[notify]" if name == "webhook" else f"[mail.{name}]"


@dataclass(frozen=True, slots=True)
class _Stored:
    secret: str = field(repr=False)
