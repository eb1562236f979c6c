"""JWT auth mounts that set-up makes for the issuers of the configuration. Source: Vault API, "/auth/jwt"."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.errors import InputError
from broker.model.jwt_issuer import JwtIssuer
from broker.paths import read_file
from broker.vault.errors import Document

_PEM: Final = re.compile(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)
_PUBLIC: Final = ("PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE")


@dataclass(frozen=True, slots=True)
class JwtMount:
    """A mount for the issuer `name`: its path below `auth/`, and how it verifies JWTs."""

    name: str
    path: str
    config: Document = field(repr=False)


def jwt_mounts(issuers: Mapping[str, JwtIssuer]) -> tuple[JwtMount, ...]:
    """Return the mounts that set-up makes; read their keys and CAs. Raise `InputError` for a file that has none."""
    return tuple(JwtMount(name, issuer.mount, _config(issuer)) for name, issuer in issuers.items() if issuer.is_ours)


def _config(issuer: JwtIssuer) -> Document:
    """Return every field that decides, so that one that was set before is seen and cleared."""
    authority = "\n".join(_blocks(issuer.ca_file, ("CERTIFICATE",)))
    return {
        "bound_issuer": issuer.issuer,
        "jwks_url": issuer.jwks_url,
        "jwks_ca_pem": authority if issuer.jwks_url else "",
        "oidc_discovery_url": issuer.discovery_url,
        "oidc_discovery_ca_pem": authority if issuer.discovery_url else "",
        "jwt_validation_pubkeys": _blocks(issuer.keys_file, _PUBLIC),
    }


def _blocks(file: str, labels: tuple[str, ...]) -> list[str]:
    """Return the PEM blocks in `file`, none if it is ""."""
    if not file:
        return []
    try:
        text = read_file(Path(file)).decode("ascii").replace("\r\n", "\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not PEM"
        raise InputError(f"cannot read {file}: {reason}", hint="check [issuers] in broker.toml") from None
    found = list(_PEM.finditer(text))
    if not found or any(block[1] not in labels for block in found):
        message = f"{file} must have PEM blocks of {' or '.join(labels)}, and no others"
        raise InputError(message, hint="openssl pkey -in KEY -pubout writes a public key")
    return [block[0] for block in found]
