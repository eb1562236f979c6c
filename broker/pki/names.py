"""Distinguished names: a `Subject` to X.509 and back, with the string types as they were sent."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography import x509
from msgspec import Struct

from broker.errors import InputError
from broker.model.subject import ATTRIBUTES, Subject
from broker.pki import der

_NAMES: Final[Mapping[str, str]] = (
    {"2.5.4.6": "C", "2.5.4.8": "ST", "2.5.4.7": "L", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.3": "CN"}
    | {"1.2.840.113549.1.9.1": "emailAddress", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.42": "GN"}
    | {"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID", "2.5.4.97": "organizationIdentifier"}
    | {"2.5.4.17": "postalCode", "2.5.4.9": "street", "2.5.4.12": "title"}
)
_OIDS: Final = {name: x509.ObjectIdentifier(oid) for oid, name in _NAMES.items()}
_STRING_TYPES: Final[Mapping[int, tuple[str, str]]] = {
    0x0C: ("UTF8String", "utf-8"),
    0x12: ("NumericString", "ascii"),
    0x13: ("PrintableString", "ascii"),
    0x14: ("TeletexString", "latin-1"),  # as openssl's old string mask and browsers write it in practice
    0x16: ("IA5String", "ascii"),
    0x1A: ("VisibleString", "ascii"),
    0x1C: ("UniversalString", "utf-32-be"),
    0x1E: ("BMPString", "utf-16-be"),
}
_SHOWN: Final = 80  # characters
_SHOWN_NAME: Final = 240
_LISTED: Final = 8
Folded = tuple[tuple[int, str, str], ...]


class NameAttribute(Struct, frozen=True):
    """One attribute as it was sent. `name` is the dotted OID if it has no short name."""

    name: str
    value: str
    string_type: str
    rdn: int  # the number of its relative distinguished name, from 0


class ReadName(Struct, frozen=True):
    """A parsed name, in the order of its encoding."""

    attributes: tuple[NameAttribute, ...]

    @property
    def subject(self) -> Subject:
        """The attributes that a `Subject` can hold, in order."""
        return Subject(tuple((a.name, a.value) for a in self.attributes if a.name in ATTRIBUTES))

    @property
    def unknown(self) -> tuple[NameAttribute, ...]:
        """The attributes that a `Subject` cannot hold."""
        return tuple(a for a in self.attributes if a.name not in ATTRIBUTES)

    @property
    def multi_valued(self) -> tuple[str, ...]:
        """The names of attributes that share a relative distinguished name with another (`OU=a+CN=b`)."""
        rdns = [a.rdn for a in self.attributes]
        return tuple(a.name for a in self.attributes if rdns.count(a.rdn) > 1)

    def __str__(self) -> str:
        """Return it for people. Control characters are escaped, since a hostile name may hold a terminal's."""
        return ", ".join(f"{a.name}={_printable(a.value)}" for a in self.attributes)


def name_of(subject: Subject) -> x509.Name:
    """Return `subject` as openssl encodes it: C PrintableString, e-mail IA5String, the rest UTF8String.

    Expects a subject that `subject_values.unencodable` accepts.
    """
    # Without the library's own validation, which counts a CN's bytes where the standard and openssl count characters;
    # it still warns.
    with warnings.catch_warnings(action="ignore"):
        attributes = [x509.NameAttribute(_OIDS[name], value, _validate=False) for name, value in subject.attributes]
    return x509.Name(attributes)


def read_name(name: der.Element) -> ReadName:
    """Parse a DER Name (RFC 5280, 4.1.2.4). Raises `InputError` for another structure."""
    rdns = enumerate(der.children(name))
    return ReadName(tuple(_read_attribute(one, number) for number, rdn in rdns for one in der.children(rdn)))


def folded(name: ReadName) -> Folded:
    """Return `name` in a form to compare, which ignores string types, case and doubled blanks (RFC 5280, 7.1)."""
    return tuple((a.rdn, a.name, " ".join(a.value.casefold().split())) for a in name.attributes)


def shown(value: str | ReadName) -> str:
    """Return `value` for a message: in quotes, shortened, control characters escaped."""
    most = _SHOWN if isinstance(value, str) else _SHOWN_NAME
    text = str(value)
    return f"'{_printable(text if len(text) <= most else text[:most] + '…')}'"


def listed(values: Iterable[str]) -> str:
    """Return `values` for a message: each once, at most eight."""
    some = list(dict.fromkeys(values))
    return ", ".join([*some[:_LISTED], *(["…"] if len(some) > _LISTED else [])])


def _read_attribute(attribute: der.Element, rdn: int) -> NameAttribute:
    parts = der.children(attribute)
    if len(parts) != 2:  # noqa: PLR2004 - type and value
        raise InputError("an attribute of the name has no value", hint="make the request or certificate again")
    oid = der.dotted(parts[0])
    string_type, codec = _STRING_TYPES.get(parts[1].tag, (f"tag {parts[1].tag:#04x}", "latin-1"))
    value = parts[1].content.decode(codec, errors="replace")
    return NameAttribute(_NAMES.get(oid, oid), value, string_type, rdn)


def _printable(value: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in value)
