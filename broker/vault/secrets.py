"""Private keys and passwords in Vault's KV: numbered, written once, destroyed in every version."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from broker.errors import RefusedError
from broker.issuing.ports import SetSecrets
from broker.model.certificate import Spki
from broker.model.generation import Generation, KeyRef, PasswordRef, key_ref
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject
from broker.pki import csr, keys
from broker.vault import layout
from broker.vault.connection import Connection, Document
from broker.vault.documents import decoded, enveloped
from broker.vault.errors import GoneError

__all__ = ["VaultKeys", "VaultPasswords", "VaultSecrets"]


class VaultKeys:
    """`rotation.ports.Keys`. The key is stored as PKCS#8 DER in base64, beside its SPKI."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def ensure(self, account: AccountName, slot: int, rules: KeyRules) -> tuple[KeyRef, Spki]:
        """Make the key of `slot`, or adopt an existing one; return after it was read back."""

        def make() -> Document:
            made = keys.generate(rules)
            return enveloped({"pkcs8": Secret(base64.b64encode(made.reveal()).decode()), "spki": keys.spki_of(made)})

        key, said = _key(self._vault.adopt(layout.key(account, slot), make), account)
        spki = keys.spki_of(key)
        if spki != said:
            raise _damaged(account)
        return key_ref(slot), spki

    def sign_request(self, account: AccountName, key: KeyRef, subject: Subject, rules: KeyRules) -> str:
        """Return a PEM CSR for `subject`, signed by `key`."""
        return csr.build(self.key(account, key), subject, rules)

    def key(self, account: AccountName, key: KeyRef) -> Secret[bytes]:
        """Return the key itself, PKCS#8 DER, for issuing and the canary; raise `RefusedError` if it is destroyed."""
        try:
            return _key(self._vault.read(layout.key(account, _slot(key))).data, account)[0]
        except GoneError:
            raise RefusedError(
                f"the private key {key} of {account} is destroyed", hint="its generation is over"
            ) from None

    def destroy(self, account: AccountName, key: KeyRef) -> None:
        """Destroy every stored version; snapshots of Vault may still hold it."""
        self._vault.destroy_all(layout.key(account, _slot(key)))


class VaultPasswords:
    """`rotation.ports.Passwords`."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def store(self, account: AccountName, slot: PasswordRef, password: Secret[str]) -> None:
        """Store `password`; raise `ConflictError` if the slot is taken."""
        self._vault.create(layout.password(account, slot), enveloped({"password": password}))

    def password(self, account: AccountName, slot: PasswordRef) -> Secret[str]:
        """Return the password itself, for issuing and the canary."""
        try:
            stored = self._vault.read(layout.password(account, slot)).data
        except GoneError:
            raise RefusedError(f"password {slot} of {account} is destroyed", hint="its generation is over") from None
        return Secret(decoded(stored, _StoredPassword, f"password {slot} of {account}").password)

    def destroy(self, account: AccountName, slot: PasswordRef) -> None:
        """Destroy every stored version; snapshots of Vault may still hold it."""
        self._vault.destroy_all(layout.password(account, slot))


class VaultSecrets:
    """`issuing.ports.ReadSecrets`: the secrets of a generation, for issuing and the canary."""

    def __init__(self, vault: Connection) -> None:
        self._keys = VaultKeys(vault)
        self._passwords = VaultPasswords(vault)

    def __call__(self, account: AccountName, generation: Generation) -> SetSecrets:
        """Return key and password of `generation`; raise `RefusedError` if they are destroyed."""
        parts = generation.parts
        return SetSecrets(self._keys.key(account, parts.key), self._passwords.password(account, parts.password))


def _slot(key: KeyRef) -> int:
    custody, _, slot = key.partition(":")
    if custody != "kv":
        raise RefusedError(f"key {key} is in a custody that this broker does not know", hint="upgrade it")
    return int(slot)


@dataclass(frozen=True, slots=True)
class _StoredPassword:
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _StoredKey:
    pkcs8: str = field(repr=False)  # DER in base64
    spki: str


def _key(stored: Document, account: AccountName) -> tuple[Secret[bytes], str]:
    """Return the key in `stored`, and the SPKI it was stored with."""
    found = decoded(stored, _StoredKey, f"a private key of {account}")
    try:
        return Secret(base64.b64decode(found.pkcs8, validate=True)), found.spki
    except ValueError:
        raise _damaged(account) from None


def _damaged(account: AccountName) -> RefusedError:
    return RefusedError(
        f"a secret of {account} is damaged",
        hint="it was not written by the broker; nothing was changed",
    )
