"""One path of a KV v2 mount, of any Vault, where the agent keeps a bundle for programs that read Vault."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from math import ceil
from typing import Final

from broker.errors import BrokerError, ConflictError, DeniedError, InputError, UnknownNameError
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.errors import MissingError, UnmountedError, field_of, unclear

MARK: Final = "credential-broker"  # a key of the path's custom metadata
_PATH: Final = re.compile(r"[\w.@+-]+(?:/[\w.@+-]+)+", re.ASCII)
_HINT: Final = "docs/kv-output.md has the policy of its login"
_OTHERS: Final = "put it into a KV mount that the broker does not use"


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest version at the path, 0 if there is none; its data, None if it is gone; and the mark."""

    version: int
    mark: str
    contents: Mapping[str, Secret[str]] | None = field(repr=False)


class KvPlace:
    """The path `place`, which begins with its mount. Nothing is asked before the first call. Raise `InputError`."""

    def __init__(self, vault: Connection, place: str) -> None:
        if not _PATH.fullmatch(place) or {".", ".."} & set(place.split("/")):
            raise InputError(f"{place[:80]!r} is not MOUNT/PATH of a KV secret", hint="such as secret/partner/acme")
        self._vault, self._place = vault, place

    @property
    def where(self) -> str:
        """The path and its Vault."""
        return f"{self._place} of {self._vault.settings.whereabouts}"

    def kept(self) -> Kept | None:
        """Return what is there, None if the path is new."""
        with self._asking():
            try:
                about = self._vault.ask("GET", self._at("metadata"))
            except MissingError:
                return None
            version, marks = (field_of(about, "data", name) for name in ("current_version", "custom_metadata"))
            if not isinstance(version, int) or not isinstance(marks, Mapping | None):
                raise unclear(self._place)
            return Kept(version, str((marks or {}).get(MARK, "")), self._read(version) if version else None)

    def mark(self, name: str, lifetime: timedelta) -> None:
        """Mark the path for the bundle `name`, and have it keep one version, which ends after `lifetime`."""
        bounds = {"max_versions": 1, "cas_required": True, "delete_version_after": f"{ceil(lifetime.total_seconds())}s"}
        with self._asking():
            self._vault.call("POST", self._at("metadata"), {**bounds, "custom_metadata": {MARK: name}})

    def write(self, contents: Mapping[str, Secret[str]], replacing: int) -> None:
        """Store `contents` as the version after `replacing`; raise if another one is the newest."""
        with self._asking():
            body = {"data": dict(contents), "options": {"cas": replacing}}
            try:
                self._vault.call("POST", self._at("data"), body)
            except ConflictError:
                if self._read(replacing + 1) != contents:  # else the answer was lost, and it was sent twice
                    hint = f"see who writes there: bao kv metadata get {self._place}"
                    raise ConflictError("it was changed meanwhile; nothing was overwritten", hint=hint) from None

    def destroy(self, version: int) -> None:
        """Destroy the data of `version`. Success is read back."""
        with self._asking():
            self._vault.call("POST", self._at("destroy"), {"versions": [version]})
            if self._read(version) is not None:
                raise unclear(self._place)

    def forget(self) -> None:
        """Remove the path with its history."""
        with self._asking():
            self._vault.call("DELETE", self._at("metadata"))

    def close(self) -> None:
        """End the login. A later request logs in again."""
        self._vault.close()

    def _read(self, version: int) -> Mapping[str, Secret[str]] | None:
        try:
            found = field_of(self._vault.ask("GET", self._at("data"), {"version": version}), "data", "data")
        except MissingError:
            return None
        if not isinstance(found, Mapping):
            raise unclear(self._place)
        return {name: Secret(str(value)) for name, value in found.items()}

    def _at(self, kind: str) -> str:
        return f"{self._mount}/{kind}/{self._place.removeprefix(f'{self._mount}/')}"

    @cached_property
    def _mount(self) -> str:
        """The mount of the path. Raise `InputError` unless it is KV v2, and no broker's."""
        about = self._vault.ask("GET", f"sys/internal/ui/mounts/{self._place}")
        mount = str(field_of(about, "data", "path") or "").strip("/")
        is_kv = field_of(about, "data", "type") == "kv" and field_of(about, "data", "options", "version") == "2"
        if not is_kv or not self._place.startswith(f"{mount}/"):
            raise InputError("it is not in a mount of KV v2", hint="bao secrets list -detailed shows the mounts")
        if field_of(about, "data", "description") == layout.DESCRIPTION:
            raise InputError(f"{mount}/ is a mount of the broker", hint=_OTHERS)
        with suppress(MissingError):  # an empty mount. A login that may not list cannot know
            names = field_of(self._vault.ask("LIST", f"{mount}/metadata/"), "data", "keys") or ()
            if f"{layout.ACCOUNTS}/" in names:
                raise InputError(f"{mount}/ has accounts of the broker", hint=_OTHERS)
        return mount

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Raise `InputError` for every error: it is about this path, and about no right of the consumer."""
        try:
            yield
        except BrokerError as error:
            is_rights = isinstance(error, DeniedError | UnknownNameError | UnmountedError)
            raise InputError(f"{self._place}: {error.message}", hint=_HINT if is_rights else error.hint) from None
