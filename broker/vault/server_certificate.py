"""A certificate of Vault's PKI engine for our own service."""

from broker.errors import DeniedError, RefusedError
from broker.model.secret import Secret
from broker.pki.tls import server_request
from broker.vault.connection import Connection
from broker.vault.errors import InvalidError, field_of, unclear


def issue(vault: Connection, role: str, name: str) -> Secret[bytes]:
    """Return a new key, and a certificate for `name` with its chain, as PEM. `role` is MOUNT/ROLE of the PKI engine.

    The key is made here: Vault only signs. Raise `BrokerError`.
    """
    mount, _, found = role.rpartition("/")
    key, csr = server_request(name)
    path = f"{mount}/sign/{found}"
    try:
        answer = vault.ask("POST", path, {"csr": csr, "format": "pem"})
    except DeniedError as error:
        hint = "broker vault setup grants it, with serve.tls_pki in its configuration"
        raise DeniedError(error.message, hint=hint) from None
    except InvalidError:
        hint = f"it must allow {name}, and keys of type ec: bao read {mount}/roles/{found}"
        raise RefusedError(f"the PKI role {role} does not sign for {name}, or does not exist", hint=hint) from None
    certificate, chain = field_of(answer, "data", "certificate"), field_of(answer, "data", "ca_chain") or ()
    if not isinstance(certificate, str):
        raise unclear(path)
    return Secret("\n".join([key.reveal().decode(), certificate, *chain]).encode())
