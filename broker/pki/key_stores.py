"""Read PKCS#12 with any number of keys. The library returns all certificates, but one key alone."""

from collections.abc import Iterator
from typing import Final

from cryptography.hazmat.primitives.serialization import pkcs12

from broker.pki import ber, der
from broker.pki.der import Element

_KEY_BAGS: Final = ("1.2.840.113549.1.12.10.1.1", "1.2.840.113549.1.12.10.1.2")
_FRIENDLY_NAME: Final = "1.2.840.113549.1.9.20"
_DATA: Final = "1.2.840.113549.1.7.1"


def open_store(data: bytes, passphrase: bytes | None) -> pkcs12.PKCS12KeyAndCertificates | None:
    """Return what the library reads of a PKCS#12 file, None if the passphrase is wrong or it is damaged."""
    try:
        return pkcs12.load_pkcs12(data, passphrase)
    except ValueError:
        return None


def key_bags(store: bytes) -> Iterator[tuple[str, bytes]]:
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
        yield der.only(ber.to_der(octets.content))


def _name(attributes: list[Element]) -> str:
    for attribute in (a for found in attributes for a in der.children(found)):
        oid, values = der.children(attribute)
        if der.dotted(oid) == _FRIENDLY_NAME:
            return b"".join(v.content for v in der.children(values)).decode("utf-16-be", errors="replace")
    return ""
