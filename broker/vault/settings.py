"""Settings of one Vault, checked by `config` before they come here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from broker.errors import InputError
from broker.model.secret import Secret
from broker.network import is_loopback

DEFAULT_MOUNT: Final = "credential-broker"


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Address and credentials of one Vault.

    `address` is `http(s)://host[:port]` or `unix:///path/of/socket`; times are seconds. `timeout` bounds one read,
    `patience` a request with all its retries. `source` names the setting that the address comes from. Raises
    `InputError` for a client certificate without its key, and for `http://` to another host without `allow_http`.
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
    allow_http: bool = False

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            hint = "set both VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, or neither"
            raise InputError("a client certificate for Vault needs its key, and the key its certificate", hint=hint)
        if self.is_plain and not self.allow_http and not is_loopback(urlsplit(self.address).hostname or ""):
            hint = f"{self.hint_for('https')}; or accept it: allow_http = true under [vault] in broker.toml"
            raise InputError(f"{self.whereabouts} would get every secret unencrypted; refusing to use it", hint=hint)

    @property
    def whereabouts(self) -> str:
        """The address for an error message: "Vault at https://vault.example ($BAO_ADDR) in namespace team"."""
        source = f" ({self.source})" if self.source else ""
        return f"Vault at {self.address}{source}" + (f" in namespace {self.namespace}" if self.namespace else "")

    @property
    def is_plain(self) -> bool:
        """Whether requests are not encrypted and go through the network."""
        return self.address.startswith("http://")

    def hint_for(self, scheme: str) -> str:
        """Return the hint that changes the scheme of the address, in the setting that it comes from."""
        address = urlsplit(self.address)._replace(scheme=scheme).geturl()
        if self.source.startswith("$"):
            return f"export {self.source[1:]}={address}"
        return f'set address = "{address}" under [vault] in {self.source or "broker.toml"}'

    @property
    def socket(self) -> str:
        """The path of the unix socket, "" for a Vault that is reached over TCP."""
        parts = urlsplit(self.address)
        return parts.path if parts.scheme == "unix" else ""
