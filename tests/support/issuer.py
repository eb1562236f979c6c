"""An issuer of JWTs, such as a CI system or Kubernetes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["AUDIENCE", "Issuer"]

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
