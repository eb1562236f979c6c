"""A certificate of Vault's PKI engine for our own service."""

from broker.errors import DeniedError, RefusedError
from broker.model.secret import Secret
from broker.pki.tls import server_request
from broker.vault.connection import Connection
from broker.vault.errors import InvalidError
from broker.vault.pki_engine import signed


def issue(vault: Connection, role: str, name: str) -> Secret[bytes]:
    """Return a new key, and a certificate for `name` with its chain, as PEM. `role` is MOUNT/ROLE of the PKI engine.

    The key is made here: Vault only signs. Raise `BrokerError`.
    """
    mount, _, found = role.rpartition("/")
    key, csr = server_request(name)
    try:
        chain = signed(vault, f"{mount}/sign/{found}", {"csr": csr})
    except DeniedError as error:
        hint = "broker vault setup grants it, with serve.tls_pki in its configuration"
        raise DeniedError(error.message, hint=hint) from None
    except InvalidError:
        hint = f"it must allow {name}, and keys of type ec: bao read {mount}/roles/{found}"
        raise RefusedError(f"the PKI role {role} does not sign for {name}, or does not exist", hint=hint) from None
    return Secret("\n".join([key.reveal().decode(), *chain]).encode())
