"""Gather what a team holds of one credential from files, archives, key stores, documents and fields.

Content decides what a piece is. Only a text without any form of its own, such as a password, needs a name.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509

from broker.errors import InputError, RefusedError
from broker.model.authentication import CLIENT_ID, LOGIN, PASSWORD
from broker.model.certificate import Spki
from broker.model.finding import Finding
from broker.model.secret import Secret
from broker.pki import archive, chain
from broker.pki import certificate_fields as fields
from broker.pki.client_ids import client_ids_in
from broker.pki.csr import ParsedCsr
from broker.pki.material import FoundKey, Material, PassphraseError, PassphraseNeededError, read_material
from broker.pki.named_values import from_base64, values_in
from broker.pki.pem import text_of

Unlock = Callable[[str], Secret[str]]  # the passphrase of what lies at a place
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


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """A certificate, and where it lies."""

    certificate: x509.Certificate
    place: str

    @property
    def spki(self) -> Spki:
        """The digest of its public key."""
        return fields.spki_of(self.certificate)


@dataclass(slots=True)
class Holdings:
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


def gather(pieces: Sequence[Piece], names: Mapping[str, str], unlock: Unlock) -> Holdings:
    """Return what `pieces` hold. `names` map what is wanted ("tls.key", "password") to a field that holds it.

    Raises what `read_material` raises for a piece that somebody named, `InputError` for one thing with two values.
    """
    found, mapped = Holdings(), False
    for piece in pieces:
        for part in _parts(piece, names):
            mapped = mapped or part.name in names
            is_secret = _add(found, part, unlock)
            if is_secret:
                found.places[piece.place] = part.removal
            elif part.name == _KEY and _KEY in names and not part.stray:
                raise InputError(f"{part.place} holds no private key", hint="give the one with the key")
    if names and not mapped:
        raise InputError("no document with named values is given", hint="--map goes with JSON, a Secret or --from-kv")
    _drop_self_signed(found)
    return found


def _drop_self_signed(found: Holdings) -> None:
    """Drop the certificates that keytool makes with each key, until it is given the partner's."""
    ours = {key.spki for key in found.keys}
    dropped = [c for c in found.certificates if c.spki in ours and chain.self_issued(c.certificate)]
    found.certificates = [c for c in found.certificates if c not in dropped]
    for c in dropped:
        message = f"{c.place} has a certificate that the key signed itself, as keytool makes it: it is not used"
        found.findings.append(Finding.note("import.self-signed", message))


def _parts(piece: Piece, names: Mapping[str, str]) -> Iterator[Piece]:
    """Yield the files of an archive and the fields of a document; the piece itself if it is neither."""
    if archive.is_zip(piece.data):
        for name, data in archive.members(piece.data):
            yield replace(piece, place=f"{piece.place}: {name}", name=name, data=data, stray=True)
        return
    document = values_in(piece.data)
    if document is None:
        yield piece
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


def _add(found: Holdings, part: Piece, unlock: Unlock) -> bool:
    """Add what `part` holds; return whether that is secret."""
    name = re.split(r"[/.]", part.name.removesuffix(".txt"))[-1].lower().replace("-", "_")
    kind = _TEXTS.get(name)
    if kind is None:
        return _add_material(found, part, unlock)
    _add_text(found, kind, part)
    return kind == PASSWORD


def _add_text(found: Holdings, kind: str, part: Piece) -> None:
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


def _add_material(found: Holdings, part: Piece, unlock: Unlock) -> bool:
    """Add keys, certificates and requests; return whether a key was among them."""
    try:
        read = _read(part, unlock)
    except PassphraseError:
        raise
    except (InputError, RefusedError) as error:
        if not part.stray:
            raise
        found.findings.append(Finding.note("import.unused", f"{part.place} is not used: {error.message}"))
        return False
    known = [key.spki for key in found.keys]
    found.keys += [key for key in read.keys if key.spki not in known]
    there = [c.certificate for c in found.certificates]
    found.certificates += [FoundCertificate(c, part.place) for c in read.certificates if c not in there]
    found.requests += [(request, part.place) for request in read.requests]
    found.findings += read.remarks
    found.client_ids += [c for c in client_ids_in([text_of(part.data)]) if c not in found.client_ids]
    return bool(read.keys)


def _read(part: Piece, unlock: Unlock) -> Material:
    """Return the material in `part`: as it is, or as base64 without armour."""
    try:
        return _opened(part, unlock)
    except PassphraseError:
        raise
    except InputError:
        decoded = from_base64(part.data)
        if decoded is None:
            raise
        return _opened(replace(part, data=decoded), unlock)


def _opened(part: Piece, unlock: Unlock) -> Material:
    try:
        return read_material(part.data, part.place)
    except PassphraseNeededError:
        return read_material(part.data, part.place, unlock(part.place))
