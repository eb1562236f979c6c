"""An issuer of JWTs, such as a CI system or Kubernetes, and a system that trusts it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.system import System
from tests.support.vault import admin_token

__all__ = ["AUDIENCE", "Issuer", "trusting"]

AUDIENCE = "credential-broker"


@dataclass(frozen=True)
class Issuer:
    """An issuer with a key of its own. `name` is its `iss`."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def public_pem(self) -> str:
        """The public key, for those who verify."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def jwt(self, subject: str, **claims: object) -> str:
        """Return a JWT of `subject` for the broker; a claim that is None is left out."""
        return jwt.PyJWS().encode(self._claims(subject, claims), self.key, "ES256")

    def unsigned(self, subject: str) -> str:
        """Return a JWT with alg "none"."""
        return jwt.PyJWS().encode(self._claims(subject, {}), "", "none")

    @property
    def jwks_document(self) -> dict[str, object]:
        """The public key as a JSON Web Key Set."""
        key = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {"keys": [{**key, "use": "sig", "alg": "ES256"}]}

    def _claims(self, subject: str, claims: dict[str, object]) -> bytes:
        now = int(time.time())
        usual = {"iss": self.name, "aud": AUDIENCE, "sub": subject, "iat": now, "nbf": now, "exp": now + 300}
        return json.dumps({name: value for name, value in {**usual, **claims}.items() if value is not None}).encode()


@contextmanager
def trusting(system: System, subjects: Mapping[str, str]) -> Iterator[dict[str, Issuer]]:
    """Configure an issuer for each name in `subjects`, set it up, and enrol its subject for acme/reporting."""
    mount = system.vault.settings.mount
    issuers = {name: Issuer(f"https://{name}.example") for name in subjects}
    with (system.home / "broker.toml").open("a") as file:
        for name, issuer in issuers.items():
            (system.home / f"{name}.pem").write_text(issuer.public_pem)
            keys = {"issuer": issuer.name, "audience": AUDIENCE, "keys_file": f"{name}.pem"}
            file.write(f"\n[issuers.{name}]\n" + "".join(f'{key} = "{text}"\n' for key, text in keys.items()))
    mounts = [f"{mount}-jwt/{name}" for name in subjects]
    system.changes = {"VAULT_TOKEN": admin_token(system.vault.admin, jwt_mounts=mounts).reveal()}
    system.ok("vault", "setup")
    for name, subject in subjects.items():
        system.ok("vault", "enrol", name, "--right", "acme/reporting", "--issuer", name, "--subject", subject)
    system.changes = {}
    try:
        yield issuers
    finally:
        for path in mounts:
            system.vault.admin.call("DELETE", f"sys/auth/{path}")
