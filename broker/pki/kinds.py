"""Recognise a DER structure by its shape, never by the name of its file or the label of its PEM block."""

from enum import Enum
from typing import Final

from cryptography import x509

from broker.errors import InputError
from broker.pki import certificate_fields as fields
from broker.pki import der
from broker.pki.der import INTEGER, Element

_SEQUENCE: Final = 0x30
_TAGGED: Final = 0xA0  # [0], constructed
_TIMES: Final = (0x17, 0x18)
_PKCS7: Final = "1.2.840.113549.1.7."
_DATA: Final = f"{_PKCS7}1"
_SIGNED_DATA: Final = f"{_PKCS7}2"
_PKCS12_VERSION: Final = b"\x03"
_FIELDS_OF_TBS: Final = 6  # the fewest of a certificate: v1, without extensions


class Kind(Enum):
    """A kind of structure. The value is for people."""

    CERTIFICATE = "certificate"
    TRUSTED_CERTIFICATE = "openssl TRUSTED CERTIFICATE"
    REQUEST = "certificate signing request"
    REVOCATION_LIST = "revocation list"
    PKCS7 = "PKCS#7 file"
    ENCRYPTED_PKCS7 = "encrypted message (PKCS#7)"
    PKCS12 = "PKCS#12 key store"
    KEY = "private key"
    ENCRYPTED_KEY = "encrypted private key"
    PUBLIC_KEY = "public key"
    OTHER = "structure of an unknown kind"


def kind_of(structure: bytes) -> Kind:
    """Return the kind of a DER structure. Raises `InputError` if it is damaged."""
    match der.children(Element(_SEQUENCE, structure, structure)):
        case [only]:
            return _kind_of(only)
        case [first, _] if _kind_of(first) is Kind.CERTIFICATE:
            return Kind.TRUSTED_CERTIFICATE
        case _:
            return Kind.OTHER


def signed_message(data: bytes) -> bytes:
    """Return the mail in a signed PKCS#7 file (an opaque smime.p7m), without its signer's certificate.

    b"" if there is none, or the file is damaged: its reader reports that.
    """
    try:
        return _signed_message(der.to_der(data))
    except InputError:
        return b""


def _signed_message(structure: bytes) -> bytes:
    if kind_of(structure) is not Kind.PKCS7:
        return b""
    _, wrapped = der.children(der.only(structure))
    content = next((e for only in der.children(wrapped) for e in der.children(only) if e.tag == _SEQUENCE), None)
    match der.children(content) if content else []:
        case [oid, data] if der.dotted(oid) == _DATA:
            return b"".join(octets.content for octets in der.children(data))
        case _:
            return b""


def _kind_of(element: Element) -> Kind:
    parts = der.children(element) if element.tag == _SEQUENCE else []
    found = Kind.OTHER
    match [part.tag for part in parts]:
        case [der.OID, *_] if der.dotted(parts[0]).startswith(_PKCS7):
            found = Kind.PKCS7 if der.dotted(parts[0]) == _SIGNED_DATA else Kind.ENCRYPTED_PKCS7
        case [der.INTEGER, 0x30, *_] if parts[0].content == _PKCS12_VERSION:
            found = Kind.PKCS12
        case [der.INTEGER, 0x30, 0x04, *_] | [der.INTEGER, 0x04, *_]:  # PKCS#8, SEC1
            found = Kind.KEY
        case [der.INTEGER, der.INTEGER, der.INTEGER, der.INTEGER, der.INTEGER, der.INTEGER, *_]:  # PKCS#1, DSA
            found = Kind.KEY
        case [0x30, 0x04]:
            found = Kind.ENCRYPTED_KEY
        case [0x30, 0x03] | [der.INTEGER, der.INTEGER]:
            found = Kind.PUBLIC_KEY
        case [0x30, 0x30, 0x03]:
            found = _signed([part.tag for part in der.children(parts[0])])
    return found


def _signed(tags: list[int]) -> Kind:
    """Return the kind of a signed structure whose content has these tags."""
    if any(tag in _TIMES for tag in tags):
        return Kind.REVOCATION_LIST
    if len(tags) >= _FIELDS_OF_TBS:
        return Kind.CERTIFICATE
    return Kind.REQUEST if tags[:3] == [INTEGER, _SEQUENCE, _SEQUENCE] else Kind.OTHER


def certificates_in(structure: bytes, kind: Kind) -> list[x509.Certificate]:
    """Return the certificates of a certificate, trusted certificate or PKCS#7 file in DER. Raises `InputError`."""
    if kind is not Kind.PKCS7:  # the trust settings that may follow are their sender's
        return [fields.load_der(der.children(Element(_SEQUENCE, structure, structure))[0].raw)]
    # SignedData (RFC 2315, 9.1), not by the library: openssl writes the set unsorted, which is no DER, and the
    # library warns that it will stop reading it. A .p7b has no signatures.
    _, *content = der.children(der.only(structure))
    signed = [e for wrapped in content for only in der.children(wrapped) for e in der.children(only)]
    found = [fields.load_der(e.raw) for part in signed if part.tag == _TAGGED for e in der.children(part)]
    if not found:
        raise InputError("the PKCS#7 file holds no certificates", hint="ask for the certificate as PEM")
    return found
