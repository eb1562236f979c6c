"""Read the extensions of a certificate one by one, so that a broken one does not hide the others.

`cryptography` returns all or none, and none for some that OpenSSL accepts, such as a pathlen without CA:TRUE.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from msgspec import Struct

from broker.errors import InputError
from broker.pki import der
from broker.pki.names import listed

ANY_PURPOSE: Final = "anyExtendedKeyUsage"
CLIENT_AUTH: Final = "clientAuth"
_EXTENSIONS: Final = 0xA3  # their tag in a TBSCertificate
_SEQUENCE: Final = 0x30
_BOOLEAN: Final = 0x01
_BIT_STRING: Final = 0x03
_BASIC_CONSTRAINTS: Final = "2.5.29.19"
_KEY_USAGE: Final = "2.5.29.15"
_PURPOSES: Final = "2.5.29.37"
_NETSCAPE: Final = "2.16.840.1.113730.1.1"
_NAMES: Final[Mapping[str, str]] = {"2.5.29.37.0": ANY_PURPOSE, _NETSCAPE: "nsCertType"}  # the library lacks them
_KEY_USAGES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_NETSCAPE_TYPES: Final = ("client", "server", "email", "objsign", "reserved", "sslCA", "emailCA", "objCA")
_CACHED: Final = 256
T = TypeVar("T")


class Extensions(Struct, frozen=True):
    """The extensions that decide about use; None means absent. Names of extensions are those of `oid_name`."""

    is_ca: bool | None = None  # BasicConstraints
    path_length: int | None = None
    usages: tuple[str, ...] | None = None  # "digital_signature"
    purposes: tuple[str, ...] | None = None  # "clientAuth"
    netscape: tuple[str, ...] | None = None  # nsCertType, as openssl names them; obsolete, but OpenSSL enforces it
    critical: tuple[str, ...] = ()
    faulty: tuple[str, ...] = ()  # broken, or there twice

    @property
    def other_purposes(self) -> str | None:
        """The extended key usages, if clientAuth is none of them, else None."""
        if self.purposes is None or CLIENT_AUTH in self.purposes:
            return None
        return listed(self.purposes) or "nothing"


@lru_cache(_CACHED)
def extensions_of(found: x509.Certificate) -> Extensions:
    """Return the extensions. Raises `InputError` if even their list is broken."""
    values, critical, faulty = dict[str, bytes](), list[str](), list[str]()
    fields = der.children(der.only(found.tbs_certificate_bytes))
    for one in (e for field in fields if field.tag == _EXTENSIONS for e in der.children(der.only(field.content))):
        oid, *flag, value = der.children(one)
        name = der.dotted(oid)
        if name in values:
            faulty.append(name)
        if any(any(f.content) for f in flag):
            critical.append(name)
        values[name] = value.content

    def read(oid: str, parse: Callable[[der.Element], T]) -> T | None:
        try:
            return parse(der.only(values[oid])) if oid in values else None
        except InputError:
            faulty.append(oid)
            return None

    is_ca, path_length = read(_BASIC_CONSTRAINTS, _basic_constraints) or (None, None)
    return Extensions(
        is_ca,
        path_length,
        read(_KEY_USAGE, lambda e: _bits(e, _KEY_USAGES)),
        read(_PURPOSES, lambda e: tuple(oid_name(der.dotted(one)) for one in _sequence(e))),
        read(_NETSCAPE, lambda e: _bits(e, _NETSCAPE_TYPES)),
        tuple(map(oid_name, critical)),
        tuple(map(oid_name, dict.fromkeys(faulty))),
    )


def _basic_constraints(element: der.Element) -> tuple[bool, int | None]:
    parts = {part.tag: part.content for part in _sequence(element)}
    length = parts.get(der.INTEGER)
    return any(parts.get(_BOOLEAN, b"")), int.from_bytes(length, "big") if length is not None else None


def _sequence(element: der.Element) -> list[der.Element]:
    if element.tag != _SEQUENCE:
        raise InputError("this extension is no sequence")
    return der.children(element)


def _bits(element: der.Element, names: tuple[str, ...]) -> tuple[str, ...]:
    if element.tag != _BIT_STRING or not element.content:
        raise InputError("this extension is no bit string")
    octets = element.content[1:]
    return tuple(name for place, name in enumerate(names[: 8 * len(octets)]) if octets[place // 8] & 0x80 >> place % 8)


def oid_name(dotted: str) -> str:
    """Return the usual name of an extension or an extended key usage, else the dotted OID."""
    name = _NAMES.get(dotted) or x509.ObjectIdentifier(dotted)._name  # noqa: SLF001 - it has no public table of names
    return dotted if name == "Unknown OID" else name
