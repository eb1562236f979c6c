"""Private keys and named secrets in Vault's KV: numbered, written once, destroyed in every version."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from broker.errors import RefusedError
from broker.issuing.ports import SetSecrets
from broker.model.authentication import PASSWORD
from broker.model.certificate import Spki
from broker.model.generation import KeyRef, Parts, SecretRef, key_ref, secret_refs
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject
from broker.pki import csr, keys
from broker.vault import layout
from broker.vault.connection import Connection, Document
from broker.vault.documents import decoded, enveloped
from broker.vault.errors import GoneError

__all__ = ["VaultKeys", "VaultNamedSecrets", "VaultSecrets"]


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


class VaultNamedSecrets:
    """`rotation.ports.Secrets`. The password lies where passwords do, another secret under its name."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def store(self, account: AccountName, ref: SecretRef, secret: Secret[str]) -> None:
        """Store `secret`; raise `ConflictError` if its number is taken."""
        name, number = _named(ref)
        label = PASSWORD if name == PASSWORD else "secret"
        self._vault.create(layout.secret(account, name, number), enveloped({label: secret}))

    def secret(self, account: AccountName, ref: SecretRef) -> Secret[str]:
        """Return the secret itself, for those who issue or probe."""
        name, number = _named(ref)
        where = f"{name} {number} of {account}"
        try:
            stored = self._vault.read(layout.secret(account, name, number)).data
        except GoneError:
            raise RefusedError(f"{where} is destroyed", hint="its generation is over") from None
        if name == PASSWORD:
            return Secret(decoded(stored, _StoredPassword, where).password)
        return Secret(decoded(stored, _StoredSecret, where).secret)

    def destroy(self, account: AccountName, ref: SecretRef) -> None:
        """Destroy every stored version; snapshots of Vault may still hold it."""
        self._vault.destroy_all(layout.secret(account, *_named(ref)))


class VaultSecrets:
    """`issuing.ports.ReadSecrets`: the secrets of a set, for those who issue or probe."""

    def __init__(self, vault: Connection) -> None:
        self._keys = VaultKeys(vault)
        self._named = VaultNamedSecrets(vault)

    def __call__(self, account: AccountName, parts: Parts) -> SetSecrets:
        """Return the key and the named secrets of a set; raise `RefusedError` if they are destroyed."""
        named = {_named(ref)[0]: self._named.secret(account, ref) for ref in secret_refs(parts.secrets)}
        return SetSecrets(self._keys.key(account, parts.key), named)


def _named(ref: SecretRef) -> tuple[str, int]:
    name, _, number = ref.rpartition(":")
    return name, int(number)


def _slot(key: KeyRef) -> int:
    custody, _, slot = key.partition(":")
    if custody != "kv":
        raise RefusedError(f"key {key} is in a custody that this broker does not know", hint="upgrade it")
    return int(slot)


@dataclass(frozen=True, slots=True)
class _StoredPassword:
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _StoredSecret:
    secret: str = field(repr=False)


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
