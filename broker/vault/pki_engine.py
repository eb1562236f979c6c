"""Vault's PKI engine."""

from collections.abc import Mapping

from broker.vault.connection import Connection
from broker.vault.errors import field_of, unclear


def signed(vault: Connection, path: str, asked: Mapping[str, str]) -> list[str]:
    """Return the certificate that a role at `path` signs for what is `asked`, and its chain, as PEM."""
    answer = vault.ask("POST", path, {**asked, "format": "pem"})
    certificate, chain = field_of(answer, "data", "certificate"), field_of(answer, "data", "ca_chain") or ()
    if not isinstance(certificate, str):
        raise unclear(path)
    return [certificate, *chain]
