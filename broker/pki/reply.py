"""Read a partner's reply: PEM, DER, PKCS#7, text, a mail, or a zip of these. Only client_id.txt counts by its name.

This finds certificates and client_ids, or says why it does not read a file. `verification` decides about them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from cryptography import x509
from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError, InputError, RefusedError
from broker.model.certificate import CaSet, Certificate, Spki
from broker.model.finding import Finding
from broker.model.fingerprint import parse_fingerprint
from broker.pki import certificate_fields as fields
from broker.pki import chain
from broker.pki.certificates import Description, ca_set_of, certificate_of, describe
from broker.pki.client_ids import client_ids_in
from broker.pki.extensions import extensions_of
from broker.pki.mail import links_in
from broker.pki.material import Reader
from broker.pki.names import shown

_MOST_HOSTS: Final = 3
_AUTHORITY: Final = re.compile(r"[/?#\\]")  # what ends it

FindPath = Callable[[x509.Certificate, Sequence[x509.Certificate]], Sequence[x509.Certificate] | None]  # leaf, pool


class OtherKeyError(RefusedError):
    """The reply has certificates, and none is for the key of the request."""


class ReplyParts(Struct, frozen=True):
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

    def without(self, refs: Collection[str]) -> "ReplyParts":
        """Return the reply without the certificates that have one of these fingerprints."""
        kept = tuple(c for c in self.certificates if fields.fingerprint_of(c) not in refs)
        return replace(self, certificates=kept)

    def for_spki(self, spki: Spki, find_path: FindPath | None = None) -> Certificate:
        """Return the certificate for this key with its intermediates.

        Prefers one that has a path to a trusted CA, then leaves to CAs (which verification refuses), then the one that
        ends last. Of the certificates beside it only that path is taken, since a reply can hold any.
        Raises `RefusedError` if there is none.
        """
        found = [c for c in self.certificates if fields.spki_of(c) == spki]
        if not found:
            leaves = [f"'{fields.subject_of(leaf)}'" for leaf in chain.leaves(self.certificates)]
            others = ", ".join(leaves) or "none but CA certificates"
            raise OtherKeyError(
                f"the reply has no certificate for the key of this request (SPKI {spki[:16]}…); it has: {others}",
                hint="import the reply to the open request",
            )
        found.sort(key=lambda c: (not extensions_of(c).is_ca, c.not_valid_after_utc), reverse=True)
        for leaf in found:
            if find_path and (path := find_path(leaf, self.certificates)):
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
    found = Reader()
    for name, data in files.items():
        found.read(name, data)
    return parts_found(found)


def parts_found(found: Reader) -> ReplyParts:
    """Return what is good of what was read; raise as `read_files` if nothing is."""
    client_ids = client_ids_in(found.texts)
    if not found.certificates:
        found.findings[:0] = _links(found.texts)
    if not found.certificates and not client_ids:
        raise _nothing(found)
    return ReplyParts(tuple(found.certificates), client_ids, tuple(dict.fromkeys(found.findings)))


def linked_hosts(texts: Iterable[str]) -> list[str]:
    """Return the hosts of the first links in `texts`, each once, as the text has them. The rest may be a secret."""
    hosts = dict.fromkeys(_host(link) for text in texts for link in links_in(text))
    return list(hosts)[:_MOST_HOSTS]


def _host(link: str) -> str:
    return _AUTHORITY.split(link.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]


def _links(texts: Iterable[str]) -> Iterator[Finding]:
    """Yield a note that names the hosts of links, which are not followed."""
    if hosts := linked_hosts(texts):
        message = f"it links to {', '.join(map(shown, hosts))}; nothing was fetched"
        yield Finding.note("reply.link", message, "download the certificate in a browser, and give that file")


def _nothing(found: Reader) -> BrokerError:
    key = next((f for f in found.findings if f.code == "reply.private-key"), None)
    if key is not None:
        return RefusedError(key.message, hint=key.hint)
    if not found.findings and not any(text.strip() for text in found.texts):
        return InputError("the reply is empty", hint="save the partner's file again")
    return found.nothing("the reply holds neither a certificate nor a client_id")
