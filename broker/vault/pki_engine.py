"""Vault's PKI engine: it signs for a partner, in the place of its people, and for our own service.

A `role` is MOUNT/ROLE of the engine. Raise `BrokerError`.
"""

from collections.abc import Mapping

from broker.errors import DeniedError, RefusedError
from broker.model.secret import Secret
from broker.pki.tls import server_request
from broker.vault.connection import Connection
from broker.vault.errors import InvalidError, field_of, unclear


def sign(vault: Connection, role: str, csr: str) -> bytes:
    """Return the certificate for `csr` and its chain, as PEM.

    The subject stays as it is, since `sign` would drop the mail address.
    """
    mount, _, name = role.rpartition("/")
    hint = f"does it exist? bao read {mount}/roles/{name}"
    refused = RefusedError(f"the PKI role {role} does not sign the request", hint=hint)
    asked = {"csr": csr, "ext_key_usage": "ClientAuth"}
    found = _signed(vault, f"{mount}/sign-verbatim/{name}", asked, "pki in [accounts.NAME] of", refused)
    return "\n".join(found).encode()


def issue(vault: Connection, role: str, name: str) -> Secret[bytes]:
    """Return a new key, and a certificate for `name` with its chain, as PEM. The key is made here: Vault only signs."""
    mount, _, found = role.rpartition("/")
    key, csr = server_request(name)
    hint = f"it must allow {name}, and keys of type ec: bao read {mount}/roles/{found}"
    refused = RefusedError(f"the PKI role {role} does not sign for {name}, or does not exist", hint=hint)
    chain = _signed(vault, f"{mount}/sign/{found}", {"csr": csr}, "serve.tls_pki in", refused)
    return Secret("\n".join([key.reveal().decode(), *chain]).encode())


def _signed(vault: Connection, path: str, asked: Mapping[str, str], setting: str, refused: RefusedError) -> list[str]:
    """Return a certificate and its chain; raise `refused` if the role does not sign. `setting` grants the right."""
    try:
        answer = vault.ask("POST", path, {**asked, "format": "pem"})
    except DeniedError as error:
        hint = f"broker vault setup grants it, with {setting} its configuration"
        raise DeniedError(error.message, hint=hint) from None
    except InvalidError:
        raise refused from None
    certificate, chain = field_of(answer, "data", "certificate"), field_of(answer, "data", "ca_chain") or ()
    if not isinstance(certificate, str):
        raise unclear(path)
    return [certificate, *chain]
