"""Issuers of the JWTs that callers of the service show."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JwtIssuer:
    """An issuer that the service accepts: its exact `iss`, the JWT mount of Vault that trusts it, our role there."""

    issuer: str
    mount: str
    role: str
