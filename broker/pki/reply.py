"""Read a partner's reply: PEM, DER, PKCS#7, text, or a zip of these. Only client_id.txt counts by its name.

This finds certificates and client_ids, or says why it does not read a file. `verification` decides about them.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from broker.errors import BrokerError, InputError, RefusedError
from broker.model.certificate import CaSet, Certificate, Spki
from broker.model.finding import Finding
from broker.pki import archive, chain, der
from broker.pki import certificate_fields as fields
from broker.pki.certificates import Description, ca_set_of, certificate_of, describe, load, parse_fingerprint
from broker.pki.client_ids import client_ids_in, labelled_by_name
from broker.pki.names import shown
from broker.pki.pem import Block, blocks_and_text, text_of

MAX_REPLY: Final = 1024 * 1024
_MOST_CERTIFICATES: Final = 32
_JKS: Final = b"\xfe\xed\xfe\xed"
_TAGGED: Final = 0xA0  # [0], constructed
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_PAGE: Final = re.compile(r"\s*(?:<!doctype\s+html|<html|<head|<\?xml)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReplyParts:
    """The content of a reply. `findings` report things that do not belong there; none of them repeats a secret."""

    certificates: tuple[x509.Certificate, ...]  # all, each once
    client_ids: tuple[str, ...]  # as the text names them: a person confirms them
    findings: tuple[Finding, ...]

    @property
    def authorities(self) -> tuple[Description, ...]:
        """The CA certificates, roots and intermediates: untrusted, until a person accepts one by its fingerprint."""
        leaves = chain.leaves(self.certificates)
        return tuple(describe(c) for c in self.certificates if c not in leaves)

    def holds(self, spki: Spki) -> bool:
        """Return whether the reply has a certificate for this key, a CA's included."""
        return any(fields.spki_of(c) == spki for c in self.certificates)

    def for_spki(self, spki: Spki, trusted: CaSet | None = None) -> Certificate:
        """Return the certificate for this key with its intermediates.

        Prefers one that chains to `trusted`, then leaves to CAs (which verification refuses), then the one that ends
        last. Of the certificates beside it only the path to `trusted` is taken, since a reply can hold any others.
        Raises `RefusedError` if there is none.
        """
        found = [c for c in self.certificates if fields.spki_of(c) == spki]
        if not found:
            leaves = [f"'{fields.subject_of(leaf)}'" for leaf in chain.leaves(self.certificates)]
            others = ", ".join(leaves) or "none but CA certificates"
            raise RefusedError(
                f"the reply has no certificate for the key of this request (SPKI {spki[:16]}…); it has: {others}",
                hint="import the reply to the open request; broker csr show lists the older ones",
            )
        found.sort(key=lambda c: (not fields.is_ca(c), c.not_valid_after_utc), reverse=True)
        cas = load(trusted.pem) if trusted else []
        for leaf in found:
            if path := chain.path(leaf, self.certificates, cas):
                # A server must be sent a pinned intermediate too, but no root.
                return certificate_of(leaf, path[1:-1] if chain.self_issued(path[-1]) else path[1:])
        return certificate_of(found[0], chain.intermediates(found[0], self.certificates))

    def issuer_of(self, certificate: Certificate) -> Description | None:
        """Return the CA for a person to accept: the last of the path from `certificate` in this reply, or None."""
        start = next(c for c in self.certificates if fields.fingerprint_of(c) == certificate.ref)
        top = [start, *chain.intermediates(start, self.certificates)][-1]
        root = next((c for c in self.certificates if c != top and chain.signed_by(top, c)), top)
        return describe(root) if root != start else None

    def accepted(self, fingerprint: str) -> CaSet:
        """Return the CA in this reply that a person accepts by its fingerprint, as a set of one.

        Raises `InputError` for text that is no fingerprint, `RefusedError` if no CA here has it.
        """
        wanted = parse_fingerprint(fingerprint)
        if wanted not in {ca.fingerprint for ca in self.authorities}:
            raise RefusedError(
                f"no CA in this reply has the fingerprint {wanted[:16]}…",
                hint="compare it with: broker cert inspect FILE; do not import this if the partner's differs",
            )
        return ca_set_of([c for c in self.certificates if fields.fingerprint_of(c) == wanted])


def read_reply(data: bytes) -> ReplyParts:
    """Find certificates and client_ids in a reply.

    Raises `InputError` if it is too big, damaged or has neither, `RefusedError` for a kind of file that is not read.
    """
    if len(data) > MAX_REPLY:
        raise InputError(f"the reply has {len(data)} bytes, more than {MAX_REPLY}", hint="is this the right file?")
    found = _Found()
    is_zip = archive.is_zip(data)
    for name, content in archive.members(data) if is_zip else [("", data)]:
        try:
            found.read(name, content)
        except InputError as error:  # a picture or a broken signature file beside the certificates is skipped
            if not is_zip:
                raise
            found.errors.append(error)
            message = f"a file in the zip was skipped: {error.message}"
            found.findings.append(Finding.warning("reply.passed-over", message, error.hint))
    client_ids = client_ids_in(found.texts)
    if not found.certificates and not client_ids:
        raise found.errors[0] if found.errors else _nothing(data)
    findings = [*found.findings, *(oddity for c in found.certificates for oddity in _oddities(c))]
    return ReplyParts(tuple(found.certificates), client_ids, tuple(dict.fromkeys(findings)))


@dataclass(slots=True)
class _Found:
    """The content of a reply's files so far."""

    certificates: list[x509.Certificate] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    errors: list[BrokerError] = field(default_factory=list)

    def read(self, name: str, data: bytes) -> None:
        if data.startswith(_JKS):
            hint = "keytool -list -rfc -keystore FILE prints its certificates as PEM: import that"
            raise RefusedError("this is a Java key store (JKS)", hint=hint)
        if der.is_der(data):
            self._add(_certificates_in(data))
            return
        blocks, text = blocks_and_text(data)
        for block in blocks:
            self._read_block(block)
        if not _PAGE.match(text):  # the scripts of a login page are full of the portal's own client_id
            self.texts.append(labelled_by_name(name, text))

    def _read_block(self, block: Block) -> None:
        match block.label:
            case "CERTIFICATE" | "X509 CERTIFICATE":
                self._add([fields.load_der(block.der)])
            case "TRUSTED CERTIFICATE":
                message = "the reply has an openssl TRUSTED CERTIFICATE, which holds trust settings of its sender"
                raise RefusedError(message, hint="convert it: openssl x509 -in FILE -out certificate.pem")
            case "PKCS7" | "CMS":
                self._add(_pkcs7(block.der))
            case _ if block.is_private_key:
                message = "the reply holds a private key, which only you should have: it is not read"
                hint = "tell the partner; if it is the key of this account, make a new request with a new key"
                self.findings.append(Finding.warning("reply.private-key", message, hint))
            case label:
                message = f"the reply also holds a {label}, which is not needed"
                self.findings.append(Finding.note("reply.stray", message))

    def _add(self, found: Iterable[x509.Certificate]) -> None:
        self.certificates += [c for c in found if c not in self.certificates]
        if len(self.certificates) > _MOST_CERTIFICATES:
            message = f"the reply has more than {_MOST_CERTIFICATES} certificates"
            raise RefusedError(message, hint="import only those that belong to it")


def _oddities(found: x509.Certificate) -> Iterator[Finding]:
    """Yield a warning for each field that other programs, or the library, refuse to read."""
    key = fields.public_key_facts(found.public_key)
    name = shown(str(fields.subject_of(found)))
    if key.is_slow:
        message = f"the key of {name} ({key}) has a size or an exponent that no CA's has: nothing is verified by it"
        yield Finding.warning("reply.slow-key", message, "ask the partner whose certificate this is")
    if fields.serial_of(found) <= 0:
        message = f"the serial number of {name} is not positive, and newer programs refuse to read such a certificate"
        yield Finding.warning("reply.serial", message, "tell the partner (RFC 5280, 4.1.2.2)")


def _certificates_in(data: bytes) -> list[x509.Certificate]:
    """Return the certificates of a DER file: one, or those of a PKCS#7 file."""
    first = next(iter(der.children(der.only(data))), None)
    if first is not None and first.tag == der.INTEGER:
        raise RefusedError(
            "the reply is a PKCS#12 file or a private key; the key of this account never leaves the vault",
            hint="extract the certificates: openssl pkcs12 -nokeys -in FILE -out certificates.pem",
        )
    return _pkcs7(data) if first is not None and first.tag == der.OID else [fields.load_der(data)]


def _pkcs7(data: bytes) -> list[x509.Certificate]:
    """Return the certificates of a SignedData (RFC 2315, 9.1). A .p7b has no signatures.

    Not by the library: openssl writes the set unsorted, which is no DER, and the library warns that it will stop
    reading it.
    """
    content = der.children(der.only(data))
    if [e.tag for e in content] != [der.OID, _TAGGED] or der.dotted(content[0]) != _SIGNED_DATA:
        raise InputError("the PKCS#7 file holds no certificates", hint="ask for the certificate as PEM")
    signed = der.children(der.only(content[1].content))
    certificates = next((e for e in signed if e.tag == _TAGGED), None)
    return [fields.load_der(e.raw) for e in der.children(certificates)] if certificates is not None else []


def _nothing(data: bytes) -> InputError:
    if not data.strip():
        return InputError("the reply is empty", hint="save the partner's file again")
    if _PAGE.match(text_of(data[:4096])):
        message = "this is a web page, not a certificate: the link needs a login, or has expired"
        return InputError(message, hint="open the link in a browser, and save the file that it offers")
    message = "the reply holds neither a certificate nor a client_id"
    return InputError(message, hint="give PEM, DER, PKCS#7, or a zip of these")
