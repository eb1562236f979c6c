"""Build certificate signing requests (PKCS#10, RFC 2986) as the partner's guide does with openssl, and parse them."""

import hashlib
import warnings
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID
from msgspec import Struct

from broker.errors import InputError, RefusedError
from broker.model.certificate import Spki
from broker.model.finding import refuse_errors
from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject
from broker.pki import der, keys, subject_values
from broker.pki.certificate_fields import PublicKey, digest_of, public_key_facts, readable
from broker.pki.extensions import oid_name
from broker.pki.names import ReadName, name_of, read_name
from broker.pki.pem import Block, blocks_in

_MAX_SIZE: Final = 64 * 1024
_DIGESTS: Final = {digest.name: digest for digest in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())}


class ParsedCsr(Struct, frozen=True):
    """A signing request as it was sent, good or bad. `lint.lint_csr` checks it."""

    name: ReadName
    spki: Spki
    key: PublicKey
    digest: str  # "sha256"; "" if the algorithm has none, or an unknown one
    pss: bool  # signed with RSASSA-PSS
    signature_valid: bool
    extensions: tuple[str, ...]  # those it asks for: "subjectAltName", or a dotted OID
    asks_to_be_ca: bool
    challenge_password: bool
    header: str  # of the PEM block; "" for DER
    holds_private_key: bool  # beside the request, in the same file
    pem: str  # normalised


def build(key: Secret[bytes], subject: Subject, rules: KeyRules) -> str:
    """Return the PEM of a request for `subject`, signed by `key`.

    Byte for byte what `openssl req -new -utf8 -sha256` makes from the guide's configuration. Raises
    `FindingsError` for a subject that cannot be encoded, `RefusedError` for a key that `rules` do not allow.
    """
    refuse_errors("the subject cannot be encoded", subject_values.unencodable(subject))
    loaded = keys.load(key)
    if loaded.key_size < rules.bits:
        raise RefusedError(f"the key has {loaded.key_size} bits, the partner wants {rules.bits}", hint="make a new key")
    builder = x509.CertificateSigningRequestBuilder().subject_name(name_of(subject))
    request = builder.sign(loaded, _DIGESTS[rules.digest])
    return request.public_bytes(Encoding.PEM).decode("ascii")


def parse(data: bytes) -> ParsedCsr:
    """Parse one request, PEM or DER. Raises `InputError` for anything else."""
    if len(data) > _MAX_SIZE:
        raise InputError(f"the file has {len(data)} bytes, too many for a request", hint="is this the right file?")
    block, holds_key = _the_request(data)
    try:
        with warnings.catch_warnings(action="ignore"):
            request = x509.load_der_x509_csr(block.der)
        # CertificationRequestInfo: version, subject, SPKI, attributes
        _, subject, spki, *_ = der.children(der.only(request.tbs_certrequest_bytes))
        extensions = readable(lambda: request.extensions, x509.Extensions([]))
        return ParsedCsr(
            name=read_name(subject),
            spki=Spki(hashlib.sha256(spki.raw).hexdigest()),
            key=public_key_facts(request.public_key),
            digest=digest_of(request),
            pss=isinstance(readable(lambda: request.signature_algorithm_parameters, None), padding.PSS),
            signature_valid=readable(lambda: request.is_signature_valid, False),
            extensions=tuple(oid_name(e.oid.dotted_string) for e in extensions),
            asks_to_be_ca=any(isinstance(e.value, x509.BasicConstraints) and e.value.ca for e in extensions),
            challenge_password=any(a.oid == AttributeOID.CHALLENGE_PASSWORD for a in request.attributes),
            header=block.label,
            holds_private_key=holds_key,
            pem=request.public_bytes(Encoding.PEM).decode("ascii"),
        )
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        hint = "it is damaged or cut off: make it again"
        message = "the signing request cannot be read: this is not the structure of one"
        raise InputError(message, hint=hint) from error


def _the_request(data: bytes) -> tuple[Block, bool]:
    if der.begins_structure(data):
        return Block("", data), False
    blocks = blocks_in(data)
    requests = [b for b in blocks if b.label in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")]
    if not requests:
        labels = ", ".join(dict.fromkeys(b.label for b in blocks)) or "nothing in PEM"
        raise InputError(f"the file holds no signing request, but {labels}", hint="give the .csr file")
    if len(requests) > 1:
        raise InputError(f"the file holds {len(requests)} signing requests", hint="give a file with one request")
    return requests[0], any(b.key is not None for b in blocks)
