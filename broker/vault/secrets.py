"""Private keys and named secrets in Vault's KV: numbered, written once, destroyed in every version."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.errors import RefusedError
from broker.issuing.grant import SetSecrets
from broker.model.authentication import PASSWORD
from broker.model.certificate import Spki
from broker.model.generation import KeyRef, Parts, SecretRef, key_ref, secret_refs
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject
from broker.pki import csr, keys
from broker.rotation.ports import SlotTakenError
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.documents import DAMAGED_HINT, decoded, enveloped, in_base64
from broker.vault.errors import Document, GoneError


class VaultKeys:
    """`rotation.ports.Keys`. The key is stored as PKCS#8 DER in base64, beside its SPKI."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def ensure(self, account: AccountName, slot: int, rules: KeyRules) -> tuple[KeyRef, Spki]:
        """Make the key of `slot`, or adopt an existing one; return after it was read back."""

        def make() -> Document:
            made = keys.generate(rules)
            return enveloped({"pkcs8": in_base64(made.reveal()), "spki": keys.spki_of(made)})

        return self._stored(account, slot, make, imported=False)

    def keep(self, account: AccountName, slot: int, key: Secret[bytes]) -> tuple[KeyRef, Spki]:
        """Store `key`, which was made outside, or find it stored; return after it was read back."""

        def make() -> Document:
            return enveloped({"pkcs8": in_base64(key.reveal()), "spki": keys.spki_of(key), "imported": True})

        try:
            ref, spki = self._stored(account, slot, make, imported=True)
        except GoneError:  # another command passed over it, and destroyed it
            raise SlotTakenError(account, slot) from None
        if spki != keys.spki_of(key):
            raise SlotTakenError(account, slot)
        return ref, spki

    def _stored(
        self, account: AccountName, slot: int, make: Callable[[], Document], *, imported: bool
    ) -> tuple[KeyRef, Spki]:
        stored = _key(self._vault.adopt(layout.key(account, slot), make), account)
        spki = keys.spki_of(Secret(stored.pkcs8))
        if spki != stored.spki:
            raise RefusedError(f"the private key in slot {slot} of {account} is damaged", hint=DAMAGED_HINT)
        if isinstance(stored, _ImportedKey) is not imported:
            raise SlotTakenError(account, slot)
        return key_ref(slot), spki

    def sign_request(self, account: AccountName, key: KeyRef, subject: Subject, rules: KeyRules) -> str:
        """Return a PEM CSR for `subject`, signed by `key`."""
        return csr.build(self.key(account, key), subject, rules)

    def key(self, account: AccountName, key: KeyRef) -> Secret[bytes]:
        """Return the key itself, PKCS#8 DER, for issuing and the canary; raise `RefusedError` if it is destroyed."""
        document = _kept(self._vault, layout.key(account, _slot(key)), f"the private key {key} of {account}")
        return Secret(_key(document, account).pkcs8)

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
        stored = _kept(self._vault, layout.secret(account, name, number), where)
        if name == PASSWORD:
            return Secret(decoded(stored, _StoredPassword, where).password)
        return Secret(decoded(stored, _StoredSecret, where).secret)

    def destroy(self, account: AccountName, ref: SecretRef) -> None:
        """Destroy every stored version; snapshots of Vault may still hold it."""
        self._vault.destroy_all(layout.secret(account, *_named(ref)))


def read_secrets(vault: Connection, account: AccountName, parts: Parts) -> SetSecrets:
    """Return the key and the named secrets of a set: `issuing.grant.ReadSecrets`. Raise `RefusedError` if destroyed."""
    named = VaultNamedSecrets(vault)
    by_name = {_named(ref)[0]: named.secret(account, ref) for ref in secret_refs(parts.secrets)}
    return SetSecrets(keys.pem(VaultKeys(vault).key(account, parts.key)), by_name)


def _kept(vault: Connection, path: str, where: str) -> Document:
    try:
        return vault.read(path).data
    except GoneError:
        raise RefusedError(f"{where} is destroyed", hint="its generation is over") from None


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
    pkcs8: bytes = field(repr=False)  # DER
    spki: str


@dataclass(frozen=True, slots=True)
class _ImportedKey(_StoredKey):
    imported: bool  # always true: made outside, and known there


def _key(stored: Document, account: AccountName) -> _StoredKey:
    value = stored.get("value")
    kind = _ImportedKey if isinstance(value, Mapping) and "imported" in value else _StoredKey
    return decoded(stored, kind, f"a private key of {account}")
