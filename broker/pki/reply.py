"""What a partner sends back, in whatever wrapping: PEM, DER, PKCS#7, text, a zip of these; a file's name counts for
nothing but client_id.txt.

Nothing here decides: it finds what is there, or says why it will not look. `verification` decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from broker.errors import BrokerError, InputError, RefusedError
from broker.model.certificate import CaSet, Certificate, Spki
from broker.model.finding import Finding, Severity
from broker.pki import archive, certificate_fields, chain, der
from broker.pki.certificates import Description, ca_set_of, certificate_of, describe_one, load, parse_fingerprint
from broker.pki.client_ids import client_ids_in, labelled_by_name
from broker.pki.names import shown
from broker.pki.pem import Block, blocks_in, text_of, text_outside
from broker.pki.strength import public_key_facts

__all__ = ["MAX_REPLY", "ReplyParts", "read_reply"]

MAX_REPLY: Final = 1024 * 1024
_MOST_CERTIFICATES: Final = 32
_JKS: Final = b"\xfe\xed\xfe\xed"
_TAGGED: Final = 0xA0  # [0], constructed
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_PAGE: Final = re.compile(r"\s*(?:<!doctype\s+html|<html|<head|<\?xml)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReplyParts:
    """What is in a reply. `findings` tell of things that do not belong there; none of them echoes a secret."""

    certificates: tuple[x509.Certificate, ...]  # all, each once
    client_ids: tuple[str, ...]  # what the text calls one: a person confirms it
    findings: tuple[Finding, ...]

    @property
    def leaves(self) -> tuple[Certificate, ...]:
        """The certificates that are no CA, each with the intermediates that came with it."""
        return tuple(self._with_links(leaf) for leaf in chain.leaves(self.certificates))

    @property
    def authorities(self) -> tuple[Description, ...]:
        """The CA certificates, roots and intermediates: untrusted, until a person accepts one by its fingerprint."""
        leaves = chain.leaves(self.certificates)
        return tuple(describe_one(c) for c in self.certificates if c not in leaves)

    @property
    def descriptions(self) -> tuple[Description, ...]:
        """All certificates for people, in the order in which they were found."""
        return tuple(describe_one(c) for c in self.certificates)

    def holds(self, spki: Spki) -> bool:
        """Whether a certificate for this key is here, be it a CA's."""
        return any(certificate_fields.spki_of(c) == spki for c in self.certificates)

    def for_spki(self, spki: Spki, trusted: CaSet | None = None) -> Certificate:
        """Return the certificate for this key with its way up: to one of `trusted` where it can be, then the longest
        lived, then any CA's, which `verification` refuses.

        Nothing beside the way to `trusted` is taken: a reply's sender can put there what he likes. Raises
        `RefusedError` if there is none.
        """
        found = [c for c in self.certificates if certificate_fields.spki_of(c) == spki]
        if not found:
            others = ", ".join(f"'{leaf.subject}'" for leaf in self.leaves) or "none but CA certificates"
            raise RefusedError(
                f"the reply has no certificate for the key of this request (SPKI {spki[:16]}…); it has: {others}",
                hint="import the reply to the open request, or look whether it answers an older one: broker csr show",
            )
        found.sort(key=lambda c: (not certificate_fields.is_ca(c), c.not_valid_after_utc), reverse=True)
        cas = load(trusted.pem) if trusted else []
        ways = ((leaf, chain.path(leaf, self.certificates, cas)) for leaf in found)
        leaf, way = next(((leaf, way) for leaf, way in ways if way), (found[0], None))
        return certificate_of(leaf, _links(way)) if way else self._with_links(leaf)

    def issuer_of(self, certificate: Certificate) -> Description | None:
        """Return the CA to show to a person: the top of the way from `certificate` within this reply, or None."""
        start = next(c for c in self.certificates if certificate_fields.fingerprint_of(c) == certificate.ref)
        here = [start, *chain.intermediates(start, self.certificates)][-1]
        root = next((c for c in self.certificates if c != here and chain.signed_by(here, c)), here)
        return describe_one(root) if root != start else None

    def accepted(self, fingerprint: str) -> CaSet:
        """Return the CA in this reply that a person accepts by its fingerprint, as a set of one.

        Raises `InputError` for a fingerprint that is none, `RefusedError` if no CA here has it.
        """
        wanted = parse_fingerprint(fingerprint)
        leaves = chain.leaves(self.certificates)
        for found in self.certificates:
            if found not in leaves and certificate_fields.fingerprint_of(found) == wanted:
                return ca_set_of([found])
        raise RefusedError(
            f"no CA in this reply has the fingerprint {wanted[:16]}…",
            hint="compare it with: broker cert inspect FILE; if the partner told you another, do not import this",
        )

    def _with_links(self, leaf: x509.Certificate) -> Certificate:
        return certificate_of(leaf, chain.intermediates(leaf, self.certificates))


@dataclass(slots=True)
class _Basket:
    """What has been found so far."""

    certificates: list[x509.Certificate] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    refusals: list[BrokerError] = field(default_factory=list)

    def add(self, found: Iterable[x509.Certificate]) -> None:
        self.certificates += [c for c in found if c not in self.certificates]
        if len(self.certificates) > _MOST_CERTIFICATES:
            raise RefusedError(
                f"the reply has more than {_MOST_CERTIFICATES} certificates", hint="import only those that belong to it"
            )


def read_reply(data: bytes) -> ReplyParts:
    """Find certificates and client_ids in a reply.

    Raises `InputError` for what is too big, damaged or empty of both, `RefusedError` for what we do not open.
    """
    if len(data) > MAX_REPLY:
        raise InputError(f"the reply has {len(data)} bytes, more than {MAX_REPLY}", hint="is this the right file?")
    basket = _Basket()
    if archive.is_zip(data):
        for name, content in archive.members(data):
            _read_member(name, content, basket)
    else:
        _read_one("", data, basket)
    client_ids = client_ids_in(basket.texts)
    if not basket.certificates and not client_ids:
        raise basket.refusals[0] if basket.refusals else _nothing(data)
    findings = [*basket.findings, *(oddity for c in basket.certificates for oddity in _oddities(c))]
    return ReplyParts(tuple(basket.certificates), client_ids, tuple(dict.fromkeys(findings)))


def _links(way: Sequence[x509.Certificate]) -> Sequence[x509.Certificate]:
    """Return what a server must be sent to walk `way` from a leaf: a pinned intermediate too, but no root."""
    return way[1:-1] if chain.self_issued(way[-1]) else way[1:]


def _oddities(found: x509.Certificate) -> Iterator[Finding]:
    """Yield what the library or whoever verifies by it would stumble over."""
    key = public_key_facts(found.public_key)
    name = shown(str(certificate_fields.subject_of(found)))
    if key.is_slow:
        message = f"the key of {name} ({key}) has a size or an exponent that no CA's has: nothing is verified by it"
        yield Finding("reply.slow-key", Severity.WARNING, message, "ask the partner whose certificate this is")
    if certificate_fields.serial_of(found) <= 0:
        message = f"the serial number of {name} is not positive, and newer programs refuse to read such a certificate"
        yield Finding("reply.serial", Severity.WARNING, message, "tell the partner (RFC 5280, 4.1.2.2)")


def _read_member(name: str, content: bytes, basket: _Basket) -> None:
    """Read one file of a zip. A picture or a broken signature file beside the certificates is no reason to stop."""
    try:
        _read_one(name, content, basket)
    except InputError as error:
        basket.refusals.append(error)
        message = f"a file in the zip was passed over: {error.message}"
        basket.findings.append(Finding("reply.passed-over", Severity.WARNING, message, error.hint))


def _read_one(name: str, data: bytes, basket: _Basket) -> None:
    if data.startswith(_JKS):
        raise RefusedError(
            "this is a Java key store (JKS)",
            hint="keytool -list -rfc -keystore FILE prints its certificates as PEM: import that",
        )
    if der.is_der(data):
        _read_der(data, basket)
        return
    for block in blocks_in(data):
        _read_block(block, basket)
    text = text_outside(data)
    if not _PAGE.match(text):  # the scripts of a login page are full of the portal's own client_id
        basket.texts.append(labelled_by_name(name, text))


def _read_block(block: Block, basket: _Basket) -> None:
    match block.label:
        case "CERTIFICATE" | "X509 CERTIFICATE":
            basket.add([certificate_fields.load_der(block.der)])
        case "TRUSTED CERTIFICATE":
            raise RefusedError(
                "the reply has an openssl TRUSTED CERTIFICATE, which carries trust settings of its sender",
                hint="convert it: openssl x509 -in FILE -out certificate.pem",
            )
        case "PKCS7" | "CMS":
            basket.add(_pkcs7(block.der))
        case _:
            basket.findings.append(_stray(block))


def _stray(block: Block) -> Finding:
    if block.is_private_key:
        message = "the reply holds a private key, which nobody but you should have: it is not read"
        hint = "tell the partner; if it is the key of this account, make a new request with a new key"
        return Finding("reply.private-key", Severity.WARNING, message, hint)
    return Finding("reply.stray", Severity.NOTE, f"the reply also holds a {block.label}, which is not needed")


def _read_der(data: bytes, basket: _Basket) -> None:
    first = next(iter(der.children(der.only(data))), None)
    if first is not None and first.tag == der.INTEGER:
        raise RefusedError(
            "the reply is a PKCS#12 file or a private key: a key comes with it, and yours never left the vault",
            hint="take the certificates out: openssl pkcs12 -nokeys -in FILE -out certificates.pem",
        )
    if first is not None and first.tag == der.OID and der.dotted(first) == _SIGNED_DATA:
        basket.add(_pkcs7(data))
        return
    basket.add([certificate_fields.load_der(data)])


def _pkcs7(data: bytes) -> list[x509.Certificate]:
    """Return the certificates of a SignedData (RFC 2315, 9.1), whose signatures nobody makes in a .p7b.

    Read by ourselves: openssl writes the set unsorted, which is no DER, and the library warns that it will stop
    reading it.
    """
    content = der.children(der.only(data))
    if [e.tag for e in content] != [der.OID, _TAGGED] or der.dotted(content[0]) != _SIGNED_DATA:
        raise InputError("the PKCS#7 file holds no certificates", hint="ask for the certificate as PEM")
    signed = der.children(der.only(content[1].content))
    certificates = next((e for e in signed if e.tag == _TAGGED), None)
    return [certificate_fields.load_der(e.raw) for e in der.children(certificates)] if certificates is not None else []


def _nothing(data: bytes) -> InputError:
    if not data.strip():
        return InputError("the reply is empty", hint="save the partner's file again")
    if _PAGE.match(text_of(data[:4096])):
        return InputError(
            "this is a web page, not a certificate: the link wanted a login, or has run out",
            hint="open the link in a browser, and save the file that it offers",
        )
    return InputError(
        "the reply holds neither a certificate nor a client_id", hint="PEM, DER, PKCS#7, or a zip of these is wanted"
    )
