"""Sign a CSR, correctly or with one of the mistakes that a partner's people make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from partner_standin.authorities import Authorities, Authority
from partner_standin.durations import parse_duration
from partner_standin.faults import Faults

PublicKey: TypeAlias = "rsa.RSAPublicKey | ec.EllipticCurvePublicKey"
LIFETIME: Final = timedelta(days=365)  # a plausible value: nothing is published
BACKDATE: Final = timedelta(minutes=-1)
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "issuer": ("current", "new", "intermediate"),
    "purpose": ("client", "server"),
    "wrong": ("", "key", "subject"),
}


@dataclass(frozen=True, slots=True)
class Terms:
    """Options of one signed answer. `issuer`, `purpose` and `wrong` take the values in `CHOICES`.

    `revoke_old` is when the login's older certificates end, counted from the signature; None keeps them valid.
    """

    delay: timedelta = timedelta()
    lifetime: timedelta = LIFETIME
    not_before: timedelta = BACKDATE
    issuer: str = "current"
    purpose: str = "client"
    wrong: str = ""
    revoke_old: timedelta | None = None
    application: str = "default"


def terms(options: Mapping[str, str], faults: Faults) -> Terms:
    """Return the terms of `options`, with faults as defaults.

    Options: delay, lifetime, not_before, revoke_old (durations), issuer, purpose, wrong, application. Raise
    `ValueError` for an unknown name or value.
    """
    unknown = options.keys() - {"delay", "lifetime", "not_before", "revoke_old", "application", *CHOICES}
    if unknown:
        raise ValueError(f"there is no option {min(unknown)!r}")
    chosen = {name: options[name] if name in options else _switched(name, faults) for name in CHOICES}
    for name, value in chosen.items():
        if value not in CHOICES[name]:
            raise ValueError(f"{name} takes {', '.join(filter(None, CHOICES[name]))}")
    return Terms(
        delay=_duration("delay", options, faults) or timedelta(),
        lifetime=_or(_duration("lifetime", options, faults), LIFETIME),
        not_before=_or(_duration("not_before", options, faults), BACKDATE),
        revoke_old=_duration("revoke_old", options, faults),
        application=options.get("application", "default"),
        **chosen,
    )


def sign(
    csr: x509.CertificateSigningRequest, authorities: Authorities, how: Terms, now: datetime
) -> tuple[x509.Certificate, Authority]:
    """Return a client certificate for `csr` on these terms, and the CA that signed it."""
    issuer = _issuer(authorities, how.issuer)
    key = _public_key(csr, how)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if how.purpose == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    start = now + how.not_before
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_other(csr.subject) if how.wrong == "subject" else csr.subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(max(start + timedelta(seconds=1), now + how.lifetime))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_LEAF_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    return certificate, issuer


def _issuer(authorities: Authorities, kind: str) -> Authority:
    if kind == "new":
        return authorities.new_issuing()
    return authorities.intermediate() if kind == "intermediate" else authorities.issuing[-1]


def _public_key(csr: x509.CertificateSigningRequest, how: Terms) -> PublicKey:
    if how.wrong == "key":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    key = csr.public_key()
    assert isinstance(key, rsa.RSAPublicKey), "checked by the desk"
    return key


def _other(subject: x509.Name) -> x509.Name:
    return x509.Name(x509.NameAttribute(a.oid, f"{a.value!s}X") if a.oid == NameOID.COMMON_NAME else a for a in subject)


def _switched(name: str, faults: Faults) -> str:
    switches = {
        "issuer": (("desk-new-ca", "new"), ("desk-intermediate", "intermediate")),
        "purpose": (("desk-server-auth", "server"),),
        "wrong": (("desk-wrong-key", "key"), ("desk-wrong-subject", "subject")),
    }[name]
    ordinary = CHOICES[name][0]
    return next((value for fault, value in switches if faults.take(fault) is not None), ordinary)


def _duration(name: str, options: Mapping[str, str], faults: Faults) -> timedelta | None:
    text = options.get(name)
    if text is None:
        text = faults.take(f"desk-{name.replace('_', '-')}")
    return None if text is None else parse_duration(text)


def _or(given: timedelta | None, ordinary: timedelta) -> timedelta:
    return ordinary if given is None else given


_LEAF_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
