"""Gather what a team holds of one credential from files, archives, key stores, documents and fields.

Content decides what a piece is. Only a text without any form of its own, such as a password, needs a name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError, InputError
from broker.model.authentication import CLIENT_ID, LOGIN, PASSWORD
from broker.model.certificate import Spki
from broker.model.finding import Finding
from broker.model.secret import Secret
from broker.pki import certificate_fields as fields
from broker.pki import chain
from broker.pki.client_ids import client_ids_in
from broker.pki.csr import ParsedCsr
from broker.pki.material import FoundKey, Reader, Unlock
from broker.pki.named_values import values_in
from broker.pki.names import shown
from broker.pki.pem import from_base64
from broker.pki.wrappings import Unwrapper

_TEXTS: Final = {"login": LOGIN, "username": LOGIN, "password": PASSWORD, "client_id": CLIENT_ID}
_KEY: Final = "tls.key"
_ENCODED: Final = "base64:"  # before the name of a field: its text is the base64 of the value


@dataclass(frozen=True, slots=True)
class Piece:
    """Content to read. `place` is where it lies, for people, and `removal` how it is removed there, "" if it is not.

    `name` is that of the file or field. A `stray` piece may be of no use, since nobody named it.
    """

    place: str
    data: bytes = field(repr=False)
    name: str = ""
    removal: str = ""
    stray: bool = False


class FoundCertificate(Struct, frozen=True):
    """A certificate, and where it lies."""

    certificate: x509.Certificate
    place: str

    @property
    def spki(self) -> Spki:
        """The digest of its public key."""
        return fields.spki_of(self.certificate)


@dataclass(slots=True)
class Gathered:
    """All that was found, each thing once, and where. `places` maps a place that holds secrets to its removal."""

    keys: list[FoundKey] = field(default_factory=list)
    certificates: list[FoundCertificate] = field(default_factory=list)
    requests: list[tuple[ParsedCsr, str]] = field(default_factory=list)
    texts: dict[str, tuple[Secret[str], str]] = field(default_factory=dict)  # login and password, and their places
    client_ids: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    @property
    def leaves(self) -> list[FoundCertificate]:
        """The certificates that are no CA."""
        leaves = chain.leaves([found.certificate for found in self.certificates])
        return [found for found in self.certificates if found.certificate in leaves]

    def certificates_of(self, spki: Spki) -> list[FoundCertificate]:
        """Return the certificates for the key `spki`, the one that ends last first."""
        found = [c for c in self.certificates if c.spki == spki]
        return sorted(found, key=lambda c: c.certificate.not_valid_after_utc, reverse=True)


def gather(pieces: Sequence[Piece], names: Mapping[str, str], unlock: Unlock) -> Gathered:
    """Return what `pieces` hold. `names` map what is wanted ("tls.key", "password") to a field that holds it.

    Raises `BrokerError` for a piece that somebody named, `InputError` for one thing with two values.
    """
    found, mapped = Gathered(), False
    for piece in pieces:
        for part in (one for file in _files(found, piece) for one in _fields(piece, file, names)):
            mapped = mapped or part.name in names
            is_secret = _add(found, part, unlock)
            if is_secret:
                found.places[piece.place] = part.removal
            elif part.name == _KEY and _KEY in names and not part.stray:
                raise InputError(f"{part.place} holds no private key", hint="give the one with the key")
    if names and not mapped:
        raise InputError("no document with named values is given", hint="--map goes with JSON, a Secret or --from-kv")
    subjects = {c.spki: str(fields.subject_of(c.certificate)) for c in found.certificates}
    found.keys = [replace(key, subject=subjects.get(key.spki, "")) for key in found.keys]
    _drop_self_signed(found)
    return found


def _drop_self_signed(found: Gathered) -> None:
    """Drop the certificates that keytool makes with each key, until it is given the partner's."""
    ours = {key.spki for key in found.keys}
    dropped = [c for c in found.certificates if c.spki in ours and chain.self_issued(c.certificate)]
    found.certificates = [c for c in found.certificates if c not in dropped]
    for c in dropped:
        message = f"{c.place} has a certificate that the key signed itself, as keytool makes it: it is not used"
        found.findings.append(Finding.note("import.self-signed", message))


def _files(found: Gathered, piece: Piece) -> Iterator[Piece]:
    """Yield the files of an archive or mail; the piece itself if it is neither, or cannot be opened."""
    for name, data in [(piece.place, piece.data)] if _kind(piece) else Unwrapper().files(piece.place, piece.data):
        place = f"{piece.place}: {name}"
        if name == piece.place:
            yield piece if isinstance(data, BrokerError) else replace(piece, data=data)
        elif isinstance(data, BrokerError):
            message = f"{shown(place)} is not used: {data.message}"
            found.findings.append(Finding.warning("file.passed-over", message, data.hint))
        else:
            yield replace(piece, place=place, name=name, data=data, stray=True)


def _fields(piece: Piece, file: Piece, names: Mapping[str, str]) -> Iterator[Piece]:
    """Yield the fields of a document; the file itself if it is none, or is inside an archive."""
    document = None if _kind(file) or file.place != piece.place else values_in(file.data)
    if document is None:
        yield file
        return
    piece = replace(piece, removal="; in the cluster: ".join(filter(None, (piece.removal, document.removal))))
    if not names:
        for name, data in document.values.items():
            yield replace(piece, place=f"{piece.place}: {name}", name=name, data=data, stray=True)
    for wanted, given in names.items():
        name = document.full_name(given.removeprefix(_ENCODED))
        data = document.values[name]
        if given.startswith(_ENCODED):
            data = from_base64(data) or b""
        yield replace(piece, place=f"{piece.place}: {name}", name=wanted, data=data)


def _kind(part: Piece) -> str:
    """Return the kind of text that `part` is by its name, "" if its content decides."""
    name = re.split(r"[/.]", part.name.removesuffix(".txt"))[-1].lower().replace("-", "_")
    return _TEXTS.get(name, "")


def _add(found: Gathered, part: Piece, unlock: Unlock) -> bool:
    """Add what `part` holds; return whether that is secret."""
    if kind := _kind(part):
        _add_text(found, kind, part)
        return kind == PASSWORD
    return _add_material(found, part, unlock)


def _add_text(found: Gathered, kind: str, part: Piece) -> None:
    try:
        text = part.data.decode().strip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text.strip():
        raise InputError(f"{part.place} holds no {kind.replace('_', ' ')}: it is not one line of text")
    if kind == CLIENT_ID:
        found.client_ids += [text] if text not in found.client_ids else []
        return
    before, place = found.texts.setdefault(kind, (Secret(text), part.place))
    if before.reveal() != text:
        raise InputError(f"{place} and {part.place} hold different values of the {kind}", hint="give one of them")


def _add_material(found: Gathered, part: Piece, unlock: Unlock) -> bool:
    """Add keys, certificates and requests; return whether a key was among them."""
    read = Reader(unlock)
    read.read(part.place, part.data)
    client_ids = client_ids_in(read.texts)
    if not (read.keys or read.certificates or read.requests or client_ids):
        nothing = f"{shown(part.place)} holds no private key, certificate or signing request"
        if not part.stray:
            raise read.nothing(nothing)
        found.findings += read.findings or [Finding.note("import.unused", nothing)]
        return False
    known = [key.spki for key in found.keys]
    found.keys += [key for key in read.keys if key.spki not in known]
    there = [c.certificate for c in found.certificates]
    found.certificates += [FoundCertificate(c, part.place) for c in read.certificates if c not in there]
    found.requests += [(request, part.place) for request in read.requests]
    found.findings += read.findings
    found.client_ids += [c for c in client_ids if c not in found.client_ids]
    return bool(read.keys)
