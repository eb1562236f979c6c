"""Read a secret of somebody else from a KV mount, version 1 or 2: with the caller's own token, never with a role's."""

import json
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.errors import InputError
from broker.vault.connection import Connection
from broker.vault.errors import MissingError, field_of, unclear
from broker.vault.logins import FileToken, FixedToken
from broker.vault.settings import VaultSettings

_PATH: Final = re.compile(r"[\w.@+ -]+(?:/[\w.@+ -]+)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class OtherSecret:
    """The fields of a secret, and where it lies."""

    mount: str
    path: str
    version: int  # of the secret, 0 in a mount without versions
    fields: Mapping[str, str] = field(repr=False)

    def removal(self, taken: Collection[str]) -> str:
        """Return the commands that remove the fields `taken`, or the whole secret if it has no others."""
        where = f"-mount={shlex.quote(self.mount)}"
        path = shlex.quote(self.path)
        if not self.version:
            return f"bao kv delete {where} {path}"
        if set(self.fields) <= set(taken):
            return f"bao kv metadata delete {where} {path}"
        removed = " ".join(f"-remove-data={shlex.quote(name)}" for name in sorted(taken))
        versions = ",".join(map(str, range(1, self.version + 1)))
        return f"bao kv patch {where} {removed} {path} && bao kv destroy {where} -versions={versions} {path}"


def _own_token(settings: VaultSettings) -> FixedToken | FileToken:
    """Return the caller's own token: from the environment, else where `bao login` and `vault login` leave it."""
    if settings.token:
        return FixedToken(settings.token)
    return FileToken(Path.home() / ".vault-token")


def read_other(settings: VaultSettings, place: str) -> OtherSecret:
    """Return the secret at `place`: mount and path. Raise `InputError` if there is none, or it is not in a KV mount."""
    if not _PATH.fullmatch(place) or {".", ".."} & set(place.split("/")):
        raise InputError(f"{place[:80]!r} is not MOUNT/PATH of a KV secret", hint="such as secret/partner/acme")
    vault = Connection(settings, _own_token(settings))
    try:
        return _read(vault, place)
    finally:
        vault.close()


def _read(vault: Connection, place: str) -> OtherSecret:
    found = vault.ask("GET", f"sys/internal/ui/mounts/{place}")
    mount, kind = str(field_of(found, "data", "path") or "").strip("/"), field_of(found, "data", "type")
    if kind not in ("kv", "generic") or not place.startswith(f"{mount}/"):
        raise InputError(f"{place} is not in a KV mount", hint="bao secrets list shows the mounts")
    path, versioned = place.removeprefix(f"{mount}/"), field_of(found, "data", "options", "version") == "2"
    try:
        answer = vault.ask("GET", f"{mount}/data/{path}" if versioned else f"{mount}/{path}")
    except MissingError:
        raise InputError(f"{place} holds no secret", hint=f"bao kv list -mount={mount} shows what there is") from None
    values = field_of(answer, "data", "data") if versioned else answer.get("data")
    version = field_of(answer, "data", "metadata", "version") if versioned else 0
    if not isinstance(values, Mapping) or not isinstance(version, int):
        raise unclear(place)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return OtherSecret(mount, path, version, texts)
