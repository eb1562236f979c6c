"""Issuers of the JWTs that callers of the service show: Kubernetes, a CI system, SPIRE, Vault's own identity tokens."""

import hashlib

from msgspec import Struct

from broker.errors import InputError


class JwtIssuer(Struct, frozen=True):
    """An issuer that the service accepts: its exact `iss`, the audience that JWTs must name, its JWT mount in Vault.

    `jwks_url`, `discovery_url` or `keys_file` says how Vault verifies, and set-up makes the mount. With none of them
    others made it, and set-up leaves it alone. Raises `InputError`.
    """

    issuer: str = ""
    audience: str = ""
    mount: str = ""
    jwks_url: str = ""
    discovery_url: str = ""
    keys_file: str = ""
    ca_file: str = ""

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience:
            hint = "issuer is exactly the JWT's iss, audience is a name for this broker among its aud"
            raise InputError("issuer and audience are required", hint=hint)
        sources = [url for url in (self.jwks_url, self.discovery_url, self.keys_file) if url]
        if len(sources) > 1 or not (sources or self.mount):
            hint = "without one, mount must name a JWT mount that exists"
            raise InputError("it needs one of jwks_url, discovery_url and keys_file", hint=hint)
        url = self.jwks_url or self.discovery_url
        if url and not url.startswith("https://"):
            raise InputError(f"{url[:80]!r} does not begin with https://", hint="or give the public keys by keys_file")
        if self.ca_file and not url:
            raise InputError("ca_file verifies jwks_url or discovery_url, and there is none", hint="remove it")

    @property
    def is_ours(self) -> bool:
        """Whether set-up makes the mount."""
        return bool(self.jwks_url or self.discovery_url or self.keys_file)

    def role(self, subject: str) -> str:
        """Return the name of the role of `subject` at the mount: each has one of its own, and none can choose it."""
        digest = hashlib.sha256("\0".join((self.issuer, subject)).encode(errors="surrogatepass")).hexdigest()
        return f"consumer-{digest[:40]}"
