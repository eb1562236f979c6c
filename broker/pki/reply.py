"""Read a partner's reply: PEM, DER, PKCS#7, text, a mail, or a zip of these. Only client_id.txt counts by its name.

This finds certificates and client_ids, or says why it does not read a file. `verification` decides about them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from broker.errors import BrokerError, InputError, RefusedError
from broker.model.certificate import CaSet, Certificate, Spki
from broker.model.finding import Finding
from broker.pki import ber, chain
from broker.pki import certificate_fields as fields
from broker.pki.certificates import Description, ca_set_of, certificate_of, describe, load, parse_fingerprint
from broker.pki.client_ids import client_ids_in, labelled_by_name
from broker.pki.foreign import PictureError, quoted
from broker.pki.kinds import Kind, certificates_in, kind_of
from broker.pki.mail import links_in
from broker.pki.names import shown
from broker.pki.pem import Block
from broker.pki.wrappings import Unwrapper

_MOST_CERTIFICATES: Final = 32
_MOST_HOSTS: Final = 3


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


def read_reply(data: bytes, name: str = "the reply") -> ReplyParts:
    """Find certificates and client_ids in one file, as `read_files` does in several."""
    return read_files({name: data})


def read_files(files: Mapping[str, bytes]) -> ReplyParts:
    """Find certificates and client_ids in files by their names, and in the archives and mails among them.

    Each part is judged by itself: what is good is used, and findings name the rest. Raises `InputError` or
    `RefusedError` if nothing is good, or if all is too much.
    """
    found = _Found()
    unwrapper = Unwrapper(found.skip)
    for file, data in files.items():
        for name, part in unwrapper.parts(file, data):
            found.take(name, part)
    client_ids = client_ids_in(found.texts)
    if not found.certificates and not client_ids:
        raise found.nothing()
    if not found.certificates:
        found.findings += found.links()
    findings = [*found.findings, *(oddity for c in found.certificates for oddity in _oddities(c))]
    return ReplyParts(tuple(found.certificates), client_ids, tuple(dict.fromkeys(findings)))


@dataclass(slots=True)
class _Found:
    """The content of files so far."""

    certificates: list[x509.Certificate] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    errors: list[BrokerError] = field(default_factory=list)

    def skip(self, name: str, error: BrokerError) -> None:
        """Report a file, or a part of it, that cannot be used."""
        if isinstance(error, PictureError):
            self._stray(name, "a picture")
            return
        message = f"{shown(name)} is not used: {error.message}"
        self.errors.append(type(error)(message, hint=error.hint))
        self.findings.append(Finding.warning("reply.passed-over", message, error.hint))

    def take(self, name: str, part: Block | str) -> None:
        """Take what is good in a part of a file."""
        if isinstance(part, str):
            self.texts.append(labelled_by_name(name, part))
        elif part.key is not None:
            self._private_key(name)
        else:
            try:
                self._take(name, ber.to_der(part.der))
            except InputError as error:
                self.skip(name, error)
        if len(self.certificates) > _MOST_CERTIFICATES:
            message = f"the reply has more than {_MOST_CERTIFICATES} certificates"
            raise RefusedError(message, hint="import only those that belong to it")

    def links(self) -> Iterator[Finding]:
        """Yield a note that names the hosts of links, which are not followed."""
        hosts = dict.fromkeys(
            urlsplit(link).netloc.rpartition("@")[2] for text in self.texts for link in links_in(text)
        )
        if hosts:
            message = f"it links to {', '.join(map(shown, list(hosts)[:_MOST_HOSTS]))}; nothing was fetched"
            yield Finding.note("reply.link", message, "download the certificate in a browser, and give that file")

    def nothing(self) -> BrokerError:
        """Return the error for files with neither certificate nor client_id."""
        key = next((f for f in self.findings if f.code == "reply.private-key"), None)
        if key is not None:
            return RefusedError(key.message, hint=key.hint)
        if self.errors:
            return self.errors[0]
        if not self.findings and not any(text.strip() for text in self.texts):
            return InputError("the reply is empty", hint="save the partner's file again")
        message = "the reply holds neither a certificate nor a client_id"
        rest = next((f for f in (*self.links(), *self.findings)), None)
        hint = "give PEM, DER, PKCS#7, a mail, or a zip of these"
        return InputError(f"{message}: {rest.message}" if rest else message, hint=rest.hint or hint if rest else hint)

    def _take(self, name: str, structure: bytes) -> None:
        match kind := kind_of(structure):
            case Kind.CERTIFICATE | Kind.TRUSTED_CERTIFICATE | Kind.PKCS7:
                self.certificates += [c for c in certificates_in(structure, kind) if c not in self.certificates]
                if kind is Kind.TRUSTED_CERTIFICATE:
                    self._stray(name, "trust settings of openssl (TRUSTED CERTIFICATE)")
            case Kind.KEY | Kind.ENCRYPTED_KEY:
                self._private_key(name)
            case Kind.PKCS12:
                hint = f"extract its certificates: openssl pkcs12 -nokeys -in {quoted(name)} -out certificates.pem; "
                hint += "add -legacy if openssl calls it unsupported"
                raise InputError("it is a PKCS#12 key store, which may hold a private key", hint=hint)
            case Kind.ENCRYPTED_PKCS7:
                hint = "open it in your mail program, and save its attachments"
                raise InputError("it is an encrypted message (PKCS#7)", hint=hint)
            case Kind.REQUEST:
                self._stray(name, "a certificate signing request: your own, sent back")
            case _:
                self._stray(name, f"a {kind.value}")

    def _stray(self, name: str, words: str) -> None:
        self.findings.append(Finding.note("reply.stray", f"{shown(name)} holds {words}, which is not needed"))

    def _private_key(self, name: str) -> None:
        message = f"{shown(name)} holds a private key, which only you should have: it is not read, and not stored"
        hint = (
            "if the partner sent it, tell the partner, and make a new request with a new key; "
            "if it is yours, account import takes it, with its certificate"
        )
        self.findings.append(Finding.warning("reply.private-key", message, hint))


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
