"""Read keys, certificates and signing requests from the files that a team has, as openssl and keytool write them.

Content decides, never a name. No error repeats a part of a key.
"""

import base64
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    pkcs12,
)
from msgspec import Struct
from OpenSSL import crypto

from broker.errors import BrokerError, InputError
from broker.model.certificate import Spki
from broker.model.finding import Finding
from broker.model.secret import Secret
from broker.pki import certificate_fields as fields
from broker.pki import csr, der, keys
from broker.pki.client_ids import labelled_by_name
from broker.pki.der import Element
from broker.pki.foreign import PictureError, quoted
from broker.pki.kinds import Kind, certificates_in, kind_of
from broker.pki.names import shown
from broker.pki.pem import Block
from broker.pki.wrappings import TooMuchError, Unwrapper, parts_of

_MOST_CERTIFICATES: Final = 32  # of one set
_MOST_ROUNDS: Final = 4_000_000  # of all key derivations together: some seconds
_PKCS8: Final = b"ENCRYPTED PRIVATE KEY"
_KEY_BAGS: Final = ("1.2.840.113549.1.12.10.1.1", "1.2.840.113549.1.12.10.1.2")
_FRIENDLY_NAME: Final = "1.2.840.113549.1.9.20"
_DATA: Final = "1.2.840.113549.1.7.1"


Unlock = Callable[[str], Secret[str]]  # the passphrase of what lies at a place


class PassphraseError(InputError):
    """The passphrase does not open the file, or there is none."""


class FoundKey(Struct, frozen=True):
    """An RSA key in a file."""

    key: Secret[bytes]  # unencrypted PKCS#8 DER
    spki: Spki
    file: str
    alias: str = ""  # its name in a key store, or its number there if it has none
    subject: str = ""  # of a certificate for it

    def __str__(self) -> str:
        """Return it as an entry of a list to choose from."""
        return ": ".join(filter(None, (shown(self.alias) if self.alias else shown(self.file), self.subject)))


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
class Reader:
    """Reads files: PEM, DER, PKCS#7, PKCS#12, text, zips and mails of these. Findings and errors name what is not used.

    Without `unlock` private keys are reported, and not read.
    """

    unlock: Unlock | None = None
    file: str = ""  # that is being read
    passphrase: bytes | None = None  # of that file
    keys: list[FoundKey] = field(default_factory=list)
    certificates: list[x509.Certificate] = field(default_factory=list)  # each once
    requests: list[csr.ParsedCsr] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    errors: list[BrokerError] = field(default_factory=list)
    _unwrapper: Unwrapper = field(default_factory=Unwrapper)

    def read(self, name: str, data: bytes) -> None:
        """Read the file `name`, and those in it. Raises `PassphraseError`, or `TooMuchError` for too much."""
        for file, content in self._unwrapper.files(name, data):
            self.file, self.passphrase = file, None
            for part in [content] if isinstance(content, BrokerError) else parts_of(file, content):
                try:
                    with warnings.catch_warnings(action="ignore"):  # the library's, about odd but readable files
                        self._take(part)
                except PassphraseError:
                    raise
                except BrokerError as error:
                    self._skip(error)
            if len(self.certificates) > _MOST_CERTIFICATES:
                message = f"there are more than {_MOST_CERTIFICATES} certificates"
                raise TooMuchError(message, hint="give only those that belong to the set")

    def nothing(self, message: str) -> BrokerError:
        """Return the error for files without anything of use."""
        if self.errors:
            return self.errors[0]
        rest = next(iter(self.findings), None)
        hint = "give PEM, DER, PKCS#7, a mail, or a zip of these"
        return InputError(f"{message}: {rest.message}" if rest else message, hint=rest.hint or hint if rest else hint)

    def _stray(self, words: str) -> None:
        """Note a part of the file that is not needed."""
        self.findings.append(Finding.note("file.stray", f"{shown(self.file)} holds {words}, which is not needed"))

    def _skip(self, error: BrokerError) -> None:
        if isinstance(error, PictureError):
            self._stray("a picture")
            return
        message = f"{shown(self.file)} is not used: {error.message}"
        self.errors.append(type(error)(message, hint=error.hint))
        self.findings.append(Finding.warning("file.passed-over", message, error.hint))

    def _take(self, part: Block | str | BrokerError) -> None:
        match part:
            case BrokerError():
                raise part
            case str():
                self.texts.append(labelled_by_name(self.file, part))
            case Block(key=Secret()) if self.unlock is None:
                self._report_key()
            case Block():
                octets = part.der if part.key is None else part.key.reveal()
                if octets.startswith(b"-----"):
                    self._add(self._decrypted(octets))
                else:
                    self._take_structure(der.to_der(octets))

    def _take_structure(self, structure: bytes) -> None:
        match kind := kind_of(structure):
            case Kind.CERTIFICATE | Kind.TRUSTED_CERTIFICATE | Kind.PKCS7:
                self._add_certificates(certificates_in(structure, kind))
                if kind is Kind.TRUSTED_CERTIFICATE:
                    self._stray("trust settings of openssl (TRUSTED CERTIFICATE)")
            case Kind.REQUEST if self.unlock is None:
                self._stray("a certificate signing request: your own, sent back")
            case Kind.REQUEST:
                self.requests.append(csr.parse(structure))
            case Kind.KEY | Kind.ENCRYPTED_KEY if self.unlock is None:
                self._report_key()
            case Kind.KEY:
                self._add(_plain(structure))
            case Kind.ENCRYPTED_KEY:
                self._add(self._decrypted(_armoured(structure)))
            case Kind.PKCS12:
                self._read_store(structure)
            case Kind.ENCRYPTED_PKCS7:
                hint = "open it in your mail program, and save its attachments"
                raise InputError("it is an encrypted message (PKCS#7)", hint=hint)
            case _:
                self._stray(f"a {kind.value}")

    def _report_key(self) -> None:
        message = f"{shown(self.file)} holds a private key, which only you should have: it is not read, and not stored"
        hint = (
            "if the partner sent it, tell the partner, and make a new request with a new key; "
            "if it is yours, import it with its certificate: broker account import ACCOUNT FILE"
        )
        self.findings.append(Finding.warning("reply.private-key", message, hint))

    def _add_certificates(self, found: Iterable[x509.Certificate]) -> None:
        for certificate in (c for c in found if c not in self.certificates):
            self.certificates.append(certificate)
            key, name = fields.public_key_facts(certificate.public_key), shown(str(fields.subject_of(certificate)))
            if key.is_slow:
                message = (
                    f"the key of {name} ({key}) has a size or an exponent that no CA's has: nothing is verified by it"
                )
                hint = "ask the partner whose certificate this is"
                self.findings.append(Finding.warning("reply.slow-key", message, hint))

    def _read_store(self, structure: bytes) -> None:
        if self.unlock is None:
            hint = f"extract its certificates: openssl pkcs12 -nokeys -in {quoted(self.file)} -out certificates.pem; "
            hint += "add -legacy if openssl calls it unsupported"
            raise InputError("it is a PKCS#12 key store, which may hold a private key", hint=hint)
        _limit_work(structure)
        store = _open_store(structure, None)
        if store is not None:
            self.passphrase = b""
        elif (store := _open_store(structure, self._passphrase())) is None:
            raise self._wrong()
        self._add_certificates(c.certificate for c in (store.cert, *store.additional_certs) if c is not None)
        bags = list(_key_bags(structure))
        for number, (alias, key) in enumerate(bags, start=1):
            encrypted = kind_of(key) is Kind.ENCRYPTED_KEY
            opened = self._decrypted(_armoured(key)) if encrypted else _plain(key)
            self._add(opened, alias or str(number))
        if store.key is not None and not bags:  # in a part that is encrypted as a whole
            self._add(store.key)

    def _decrypted(self, pem: bytes) -> object:
        """Return the key of an encrypted PEM block. By OpenSSL, which reads ciphers that the library does not."""
        try:
            return crypto.load_privatekey(crypto.FILETYPE_PEM, pem, self._passphrase()).to_cryptography_key()
        except (crypto.Error, ValueError, TypeError, UnsupportedAlgorithm):  # without its cause, which may quote it
            raise self._wrong() from None

    def _add(self, key: object, alias: str = "") -> None:
        if not isinstance(key, rsa.RSAPrivateKey):
            raise InputError("the private key is not RSA", hint="partners accept only RSA")
        octets = Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        self.keys.append(FoundKey(octets, keys.spki_of(octets), self.file, alias))

    def _passphrase(self) -> bytes:
        """Return the passphrase. Never None, for which OpenSSL would ask the terminal."""
        if self.passphrase is None and self.unlock is not None:
            self.passphrase = self.unlock(self.file).reveal().encode(errors="surrogateescape")
        return self.passphrase or b""

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
    elif element.tag & der.CONSTRUCTED:
        for child in der.children(element):
            yield from _numbers(child)


def _open_store(data: bytes, passphrase: bytes | None) -> pkcs12.PKCS12KeyAndCertificates | None:
    """Return what the library reads of a PKCS#12 file, None if the passphrase is wrong or it is damaged."""
    try:
        return pkcs12.load_pkcs12(data, passphrase)
    except ValueError:
        return None


def _key_bags(store: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and PKCS#8, encrypted or not, of each key in a PKCS#12 file in DER (RFC 7292, 4).

    Programs encrypt each key by itself and write its name beside it in the clear. Raises `InputError` if it is damaged.
    """
    for content in _contents(der.children(der.only(store))[1]):
        for part in der.children(content):
            if der.dotted(der.children(part)[0]) != _DATA:
                continue  # encrypted as a whole: certificates
            for bag in (b for inner in _contents(part) for b in der.children(inner)):
                oid, value, *attributes = der.children(bag)
                if der.dotted(oid) in _KEY_BAGS:
                    yield _name(attributes), value.content


def _contents(content_info: Element) -> Iterator[Element]:
    """Yield the structure in the octets of a ContentInfo with data: at most one."""
    _, wrapped = der.children(content_info)
    for octets in der.children(wrapped):
        yield der.only(der.to_der(octets.content))


def _name(attributes: list[Element]) -> str:
    for attribute in (a for found in attributes for a in der.children(found)):
        oid, values = der.children(attribute)
        if der.dotted(oid) == _FRIENDLY_NAME:
            return b"".join(v.content for v in der.children(values)).decode("utf-16-be", errors="replace")
    return ""
