"""A bundle as a secret of another Vault, for programs that read Vault: each of its files is one key.

The path is claimed before the bundle is written, and each write names the version that it follows, so nothing that
others wrote is overwritten. Vault keeps one version, and ends it with the lease even if this process was killed.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from broker.delivery.formats import render
from broker.errors import InputError
from broker.model.bundle import Bundle
from broker.model.clock import Clock
from broker.model.secret import Secret

_HOLDER: Final = "holder"  # the key that names the agent
_CLAIMED: Final = "claimed_for"  # the other key of a claim, which holds no secret
_LEAST: Final = timedelta(seconds=1)

Contents = Mapping[str, Secret[str]]


class Kept(Protocol):
    """What Vault has at a path. `version` is 0 if nothing was written, `contents` None if it is gone.

    `mark` names the bundle that the path was marked for, "" if it has no mark.
    """

    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def mark(self) -> str: ...  # noqa: D102
    @property
    def contents(self) -> Contents | None: ...  # noqa: D102


class Place(Protocol):
    """A path of a KV v2 mount. Raise `InputError`, also if its Vault is away."""

    @property
    def where(self) -> str:
        """The path, for people."""

    def kept(self) -> Kept | None:
        """Return what is there, None if the path is new."""

    def mark(self, name: str, lifetime: timedelta) -> None:
        """Mark the path for the bundle `name`, and have it keep one version, which ends after `lifetime`."""

    def write(self, contents: Contents, replacing: int) -> None:
        """Store `contents` as the version after `replacing`; raise if another one is the newest."""

    def destroy(self, version: int) -> None:
        """Destroy the data of `version`."""

    def forget(self) -> None:
        """Remove the path with its history."""

    def close(self) -> None:
        """End the login. A later request logs in again."""


class KvOutput(Struct, frozen=True):
    """An `Output`. `name` is the bundle's, `holder` this agent's: the same after a restart, and no other agent's."""

    place: Place
    name: str
    holder: str
    clock: Clock

    def write(self, bundle: Bundle) -> None:
        """Store the bundle until its lease ends, unless it is there already."""
        contents = {**_parts(bundle), _HOLDER: Secret(self.holder)}
        kept = self.place.kept()
        if kept is None:
            self._claim()
        else:
            self._require_ours(kept)
        if kept and kept.contents == contents:
            return
        self.place.mark(self.name, max(_LEAST, bundle.expires - self.clock()))
        self.place.write(contents, replacing=kept.version if kept else 1)

    def remove(self) -> None:
        """Destroy what this agent wrote, also before a kill. What is not ours stays."""
        try:
            kept = self.place.kept()
            if kept is None or not self._is_ours(kept):
                return
            if kept.version:
                self.place.destroy(kept.version)
            after = self.place.kept()
            if after and after.version == kept.version:
                self.place.forget()
        finally:
            self.place.close()

    def _claim(self) -> None:
        """Take a new path by a version without secrets: of two agents, one succeeds."""
        self.place.write({_HOLDER: Secret(self.holder), _CLAIMED: Secret(self.name)}, replacing=0)

    def _require_ours(self, kept: Kept) -> None:
        owner, where = _owner(kept), self.place.where
        if not owner:
            hint = "name a new path under [bundles.kv]"
            raise InputError(f"{where} exists, and the broker did not make it; refusing to write there", hint=hint)
        if owner != self.name:
            hint = "name another path under [bundles.kv] of one of them"
            raise InputError(f"{where} has the bundle of {owner}", hint=hint)
        if self._is_ours(kept) or _is_claim(kept):
            return
        holder = _text(kept, _HOLDER)
        if not holder:
            raise InputError(f"{where} was changed by others", hint="name a new path under [bundles.kv]")
        hint = "name another path for one of them; it is free once that agent has stopped, or its lease has ended"
        raise InputError(f"{where} is kept by another agent: {holder}", hint=hint)

    def _is_ours(self, kept: Kept) -> bool:
        return _owner(kept) == self.name and (kept.contents is None or _text(kept, _HOLDER) == self.holder)


def _owner(kept: Kept) -> str:
    return kept.mark or _text(kept, _CLAIMED)


def _is_claim(kept: Kept) -> bool:
    return set(kept.contents or ()) == {_HOLDER, _CLAIMED}


def _text(kept: Kept, key: str) -> str:
    found = (kept.contents or {}).get(key)
    return found.reveal() if found else ""


def _parts(bundle: Bundle) -> dict[str, Secret[str]]:
    """Return the default files by name, with what a caller needs beside them."""
    files = render(bundle, (), Path("/"))  # none of them names a path
    facts = {
        "base_url": bundle.base_url,
        "generation": str(bundle.generation),
        "not_after": bundle.not_after.isoformat(),
        "expires": bundle.expires.isoformat(),
    }
    parts = {file.value: Secret(content.reveal().decode()) for file, content in files.items()}
    return {**parts, **{name: Secret(text) for name, text in facts.items()}}
