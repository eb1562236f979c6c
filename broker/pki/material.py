"""Read keys, certificates and signing requests from the files that a team has, as openssl and keytool write them.

Content decides, never a name. No error repeats a part of a key.
"""

import base64
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from broker.errors import BrokerError, InputError, RefusedError
from broker.model.certificate import Spki
from broker.model.finding import Finding
from broker.model.secret import Secret
from broker.pki import ber, csr, der, key_stores, keys
from broker.pki import certificate_fields as fields
from broker.pki.der import Element
from broker.pki.kinds import Kind, certificates_in, kind_of
from broker.pki.names import shown
from broker.pki.pem import Block
from broker.pki.wrappings import Unwrapper

try:
    from OpenSSL import crypto
except ImportError:  # an extra
    crypto = None  # type: ignore[assignment]

_MOST_ROUNDS: Final = 4_000_000  # of all key derivations together: some seconds
_PKCS8: Final = b"ENCRYPTED PRIVATE KEY"
_CONSTRUCTED: Final = 0x20
_NO_OPENSSL: Final = "this needs pyOpenSSL, which is not installed (pip install '.[server]' in the checkout)"


class PassphraseError(InputError):
    """The passphrase does not open the file."""


class PassphraseNeededError(PassphraseError):
    """The file is encrypted, and no passphrase was given."""


@dataclass(frozen=True, slots=True)
class FoundKey:
    """An RSA key in a file."""

    key: Secret[bytes]  # unencrypted PKCS#8 DER
    spki: Spki
    file: str
    alias: str = ""  # its name in a key store, or its number there if it has none
    subject: str = ""  # of its certificate in the same file

    def __str__(self) -> str:
        """Return it as an entry of a list to choose from."""
        return ": ".join(filter(None, (shown(self.alias) if self.alias else shown(self.file), self.subject)))


@dataclass(frozen=True, slots=True)
class Material:
    """The useful content of one file. `remarks` name the rest; none repeats a secret."""

    keys: tuple[FoundKey, ...]
    certificates: tuple[x509.Certificate, ...]
    requests: tuple[csr.ParsedCsr, ...]
    remarks: tuple[Finding, ...]


def read_material(data: bytes, name: str, passphrase: Secret[str] | None = None) -> Material:
    """Find keys, certificates and signing requests in the file `name`: PEM, DER, PKCS#7, PKCS#12, a zip or a mail.

    Raises `PassphraseNeededError` if a passphrase is missing, `PassphraseError` if it is wrong, `InputError` if it is
    not needed or if the file holds nothing of use, `RefusedError` for a Java key store that is not PKCS#12.
    """
    reader = _Reader(passphrase)
    with warnings.catch_warnings(action="ignore"):  # the library's, about odd but readable files
        for file, part in Unwrapper(reader.skip).parts(name, data):
            if isinstance(part, Block):
                reader.take(file, part)
    if reader.keys and passphrase and passphrase.reveal() and not reader.used:
        raise InputError(f"{shown(name)} needs no passphrase, but one was given", hint="leave the passphrase out")
    if not (reader.keys or reader.certificates or reader.requests):
        hint = "give PEM, DER, PKCS#7, PKCS#12, or a zip of these"
        nothing = InputError(f"{shown(name)} holds no private key, certificate or signing request", hint=hint)
        raise reader.errors[0] if reader.errors else nothing
    subjects = {fields.spki_of(c): str(fields.subject_of(c)) for c in reader.certificates}
    found = tuple(replace(key, subject=subjects.get(key.spki, "")) for key in reader.keys)
    return Material(found, tuple(reader.certificates), tuple(reader.requests), tuple(reader.remarks))


def choose_key(found: Sequence[FoundKey], alias: str | None = None) -> FoundKey:
    """Return the one key of `found`, or the one called `alias`.

    Raises `InputError` with a list of all if there are several and no alias, or none or several of that alias.
    """
    different = {key.spki: key for key in found if alias in (None, key.alias)}
    if len(different) == 1:
        return next(iter(different.values()))
    if not found:
        raise InputError("there is no private key", hint="give the file of the key too")
    entries = "; ".join(map(str, found))
    if alias is None:
        raise InputError(f"there is more than one private key: {entries}", hint="choose one with --alias NAME")
    raise InputError(
        f"no single private key is called {shown(alias)}; there are: {entries}", hint="give another --alias"
    )


@dataclass(slots=True)
class _Reader:
    """Reads files. A part that cannot be used becomes a remark; a passphrase that does not fit ends the reading."""

    passphrase: Secret[str] | None
    used: bool = False  # the passphrase
    file: str = ""  # that is being read
    keys: list[FoundKey] = field(default_factory=list)
    certificates: list[x509.Certificate] = field(default_factory=list)
    requests: list[csr.ParsedCsr] = field(default_factory=list)
    remarks: list[Finding] = field(default_factory=list)
    errors: list[BrokerError] = field(default_factory=list)

    def take(self, file: str, block: Block) -> None:
        """Take what is good in a part of a file."""
        self.file = file
        try:
            self._take(block.der if block.key is None else block.key.reveal())
        except PassphraseError:
            raise
        except BrokerError as error:
            self.skip(file, error)

    def skip(self, file: str, error: BrokerError) -> None:
        """Remark a file, or a part of it, that cannot be used."""
        error = type(error)(f"{shown(file)} is not used: {error.message}", hint=error.hint)
        self.errors.append(error)
        self.remarks.append(Finding.warning("material.passed-over", error.message, error.hint))

    def _take(self, octets: bytes) -> None:
        if octets.startswith(b"-----"):
            self._add(self._decrypted(octets, self._passphrase()))
            return
        structure = ber.to_der(octets)
        match kind := kind_of(structure):
            case Kind.CERTIFICATE | Kind.TRUSTED_CERTIFICATE | Kind.PKCS7:
                self.certificates += [c for c in certificates_in(structure, kind) if c not in self.certificates]
            case Kind.REQUEST:
                self.requests.append(csr.parse(structure))
            case Kind.KEY:
                self._add(_plain(structure))
            case Kind.ENCRYPTED_KEY:
                self._add(self._decrypted(_armoured(structure), self._passphrase()))
            case Kind.PKCS12:
                self._read_store(structure)
            case _:
                self.skip(self.file, InputError(f"it is a {kind.value}", hint="give the key or the certificate"))

    def _read_store(self, structure: bytes) -> None:
        _limit_work(structure)
        passphrase = b""
        if (store := key_stores.open_store(structure, None)) is None:
            passphrase = self._passphrase()
            store = key_stores.open_store(structure, passphrase)
        if store is None:
            raise self._wrong()
        held = [c.certificate for c in (store.cert, *store.additional_certs) if c is not None]
        self.certificates += [c for c in held if c not in self.certificates]
        bags = list(key_stores.key_bags(structure))
        for number, (alias, key) in enumerate(bags, start=1):
            encrypted = kind_of(key) is Kind.ENCRYPTED_KEY
            opened = self._decrypted(_armoured(key), passphrase) if encrypted else _plain(key)
            self._add(opened, alias or str(number))
        if store.key is not None and not bags:  # in a part that is encrypted as a whole
            self._add(store.key)

    def _decrypted(self, pem: bytes, passphrase: bytes) -> object:
        """Return the key of an encrypted PEM block. By OpenSSL, which reads ciphers that the library does not."""
        if crypto is None:
            raise RefusedError("it is encrypted", hint=_NO_OPENSSL)
        try:
            return crypto.load_privatekey(crypto.FILETYPE_PEM, pem, passphrase).to_cryptography_key()
        except (crypto.Error, ValueError, TypeError, UnsupportedAlgorithm):  # without its cause, which may quote it
            raise self._wrong() from None

    def _add(self, key: object, alias: str = "") -> None:
        if not isinstance(key, rsa.RSAPrivateKey):
            raise InputError("the private key is not RSA", hint="partners accept only RSA")
        octets = Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        self.keys.append(FoundKey(octets, keys.spki_of(octets), self.file, alias))

    def _passphrase(self) -> bytes:
        """Return the passphrase. Never None, for which OpenSSL would ask the terminal."""
        if self.passphrase is None:
            hint = "give its passphrase; if it was made without one, give an empty one"
            raise PassphraseNeededError(f"{shown(self.file)} is encrypted, and needs its passphrase", hint=hint)
        self.used = True
        return self.passphrase.reveal().encode(errors="surrogateescape")

    def _wrong(self) -> PassphraseError:
        hint = "a passphrase belongs to the key of one file; upper and lower case differ"
        return PassphraseError(f"the passphrase of {shown(self.file)} is wrong, or the file is damaged", hint=hint)


def _plain(structure: bytes) -> object:
    try:
        return load_der_private_key(structure, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # without its cause, which may quote it
        raise InputError("the private key is damaged", hint="take another copy of it") from None


def _armoured(encrypted: bytes) -> bytes:
    """Return an encrypted PKCS#8 key as the PEM that OpenSSL decrypts."""
    _limit_work(encrypted)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (_PKCS8, base64.encodebytes(encrypted), _PKCS8)


def _limit_work(structure: bytes) -> None:
    """Refuse an encryption that would keep this machine busy for minutes. Its numbers are rounds, sizes, versions."""
    numbers = sum(map(abs, _numbers(der.only(structure))))
    if numbers > _MOST_ROUNDS:
        hint = "write it again with fewer rounds, with openssl or keytool"
        raise InputError(f"its encryption asks for {numbers} rounds, more than {_MOST_ROUNDS}", hint=hint)


def _numbers(element: Element) -> Iterator[int]:
    if element.tag == der.INTEGER:
        yield int.from_bytes(element.content[:16], "big", signed=True)
    elif element.tag & _CONSTRUCTED:
        for child in der.children(element):
            yield from _numbers(child)
