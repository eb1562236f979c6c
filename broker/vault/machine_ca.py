"""A PKI engine of Vault in the place of a partner's people: it signs a request as it is."""

from broker.errors import DeniedError, RefusedError
from broker.vault.connection import Connection
from broker.vault.errors import InvalidError
from broker.vault.pki_engine import signed


def sign(vault: Connection, role: str, csr: str) -> bytes:
    """Return the certificate for `csr` and its chain, as PEM. `role` is MOUNT/ROLE of the PKI engine.

    The subject stays as it is, since `sign` would drop the mail address. Raise `BrokerError`.
    """
    mount, _, name = role.rpartition("/")
    try:
        found = signed(vault, f"{mount}/sign-verbatim/{name}", {"csr": csr, "ext_key_usage": "ClientAuth"})
    except DeniedError as error:
        hint = "broker vault setup grants it, with pki in [accounts.NAME] of its configuration"
        raise DeniedError(error.message, hint=hint) from None
    except InvalidError:
        hint = f"does it exist? bao read {mount}/roles/{name}"
        raise RefusedError(f"the PKI role {role} does not sign the request", hint=hint) from None
    return "\n".join(found).encode()
