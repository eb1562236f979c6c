"""Where Vault is and how to reach it, in the words of Vault's own tools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from broker.errors import InputError
from broker.model.secret import Secret

__all__ = ["DEFAULT_MOUNT", "PREFIXES", "VaultSettings", "from_environment"]

DEFAULT_MOUNT: Final = "credential-broker"
PREFIXES: Final = ("BAO_", "VAULT_")  # the first that is set wins, as in OpenBao's tools
_MOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*", re.ASCII)
_SCHEMES: Final = ("http", "https", "unix")
_FORM: Final = "give http(s)://host:port or unix:///path/of/socket"
_ON: Final = ("1", "t", "true")  # what Go's strconv.ParseBool, hence Vault, takes for yes


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """How to reach one Vault.

    `address` is `http(s)://host[:port]` or `unix:///path/of/socket`; times are seconds. `timeout` bounds one answer,
    `patience` a request with all its retries. `source` says to people who named the address. Raises `InputError` when
    they cannot be used together.
    """

    address: str
    mount: str = DEFAULT_MOUNT
    namespace: str = ""
    ca_file: Path | None = None
    ca_directory: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    server_name: str = ""
    timeout: float = 10.0
    patience: float = 10.0
    token: Secret[str] | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check_address(self.address, self._named)
        if not _MOUNT.fullmatch(self.mount):
            raise InputError(f"{self.mount[:80]!r} is not a mount of Vault", hint="letters, digits, '-', '_', '.', '/'")
        if (self.client_certificate is None) != (self.client_key is None):
            raise InputError(
                "a client certificate for Vault needs its key, and the key its certificate",
                hint="set both VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, or neither",
            )

    @property
    def whereabouts(self) -> str:
        """Which Vault this is, for an error: "Vault at https://vault.example ($BAO_ADDR) in namespace team"."""
        return f"Vault at {self.address}{self._named}" + (f" in namespace {self.namespace}" if self.namespace else "")

    @property
    def _named(self) -> str:
        return f" ({self.source})" if self.source else ""

    @property
    def socket(self) -> str:
        """The path of the unix socket, or "" where Vault is reached over TCP."""
        parts = urlsplit(self.address)
        return parts.path if parts.scheme == "unix" else ""


def from_environment(environment: Mapping[str, str], *, mount: str = DEFAULT_MOUNT, source: str = "") -> VaultSettings:
    """Read what Vault's own tools read, `BAO_…` before `VAULT_…`; raise `InputError` on what we refuse or lack.

    `source` is where the address was found, if it was not here.

    Source: "Environment variables" in the command references of OpenBao and Vault. Without an address there is no
    guessing: their default, https://127.0.0.1:8200, is rarely what is meant.
    """

    def value(name: str) -> str:
        return next((environment[prefix + name] for prefix in PREFIXES if environment.get(prefix + name)), "")

    def path(name: str) -> Path | None:
        return Path(value(name)) if value(name) else None

    if value("SKIP_VERIFY").lower() in _ON:
        raise InputError(
            "VAULT_SKIP_VERIFY is set: the broker does not talk to a Vault that it cannot verify",
            hint="unset it, and point VAULT_CACERT at the CA of Vault's certificate",
        )
    if not value("ADDR"):
        raise InputError("no address of a Vault is known", hint="set VAULT_ADDR, or run: broker vault start")
    return VaultSettings(
        address=value("ADDR").rstrip("/"),
        mount=mount,
        namespace=value("NAMESPACE").strip("/"),
        ca_file=path("CACERT"),
        ca_directory=path("CAPATH"),
        client_certificate=path("CLIENT_CERT"),
        client_key=path("CLIENT_KEY"),
        server_name=value("TLS_SERVER_NAME"),
        token=Secret(value("TOKEN")) if value("TOKEN") else None,
        source=source or next(f"${prefix}ADDR" for prefix in PREFIXES if environment.get(f"{prefix}ADDR")),
    )


def _check_address(address: str, named: str) -> None:
    shown = f"{address.rpartition('@')[2][:80]!r}{named}"  # what is before an @ may be a password
    try:
        parts = urlsplit(address)
        usable = parts.port != 0 and bool(parts.path if parts.scheme == "unix" else parts.hostname)
    except ValueError:  # half an IPv6 address, a port that is none
        raise InputError(f"{shown} is not an address of Vault", hint=_FORM) from None
    if parts.scheme not in _SCHEMES or not usable:
        hint = _FORM if "://" in address else f"put http:// or https:// in front: {_FORM}"
        raise InputError(f"{shown} is not an address of Vault", hint=hint)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"the address of Vault{named} carries more than host, port and path", hint="strip user and query"
        )
    if parts.path.rstrip("/").endswith("/v1") and parts.scheme != "unix":
        raise InputError(f"{shown} ends in /v1, which the broker itself puts there", hint="leave /v1 away")
