"""Connect a bundle of the agent to a path of another Vault, with a login of its own."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from broker.agent.kv import KvOutput
from broker.errors import InputError
from broker.model.clock import Clock
from broker.settings import checked_address
from broker.typed import typed
from broker.vault.connection import Connection
from broker.vault.kv_place import KvPlace
from broker.vault.logins import token_source
from broker.vault.settings import VaultSettings

_MOUNTS: Final = {"approle": "approle"}  # as Vault calls it; the broker's own AppRole has another
_HINT: Final = "docs/kv-output.md shows every key"


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    path: str
    login: dict[str, str]
    namespace: str = ""
    ca_file: str = ""


def kv_output(table: Mapping[str, Any], name: str, root: Path, base: Path, clock: Clock) -> KvOutput:
    """Return the output that `table`, a `[bundles.kv]`, describes, for the bundle `name` with its files in `root`.

    Paths begin at `base`. Raise `InputError`. Nothing is sent yet.
    """
    try:
        read = typed(table, _Table)
        login = {key: str(base / Path(value)) if key.endswith("file") else value for key, value in read.login.items()}
        method = login.pop("method", "")
        settings = VaultSettings(
            checked_address(read.address),
            namespace=read.namespace,
            ca_file=base / Path(read.ca_file) if read.ca_file else None,
            source="[bundles.kv]",
        )
        anonymous = Connection(settings, holder="[bundles.kv]")
        login.setdefault("mount", _MOUNTS.get(method, ""))
        place = KvPlace(
            Connection(settings, token_source(method, anonymous, login), holder=anonymous.holder), read.path
        )
    except msgspec.ValidationError as error:
        raise InputError(f"[bundles.kv] of {name}: {error}", hint=_HINT) from None
    except InputError as error:
        raise InputError(f"[bundles.kv] of {name}: {error.message}", hint=_HINT) from None
    return KvOutput(place, name, f"{socket.gethostname()}:{root}", clock)
