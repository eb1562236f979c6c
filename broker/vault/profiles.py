"""Custom profiles of partners in Vault."""

from collections.abc import Iterator, Mapping

from broker.errors import ConflictError
from broker.model.names import NAME
from broker.partners.document import to_document
from broker.partners.profile import Profile
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.errors import Document
from broker.vault.listing import PROFILES, Documents, documents, listed


def own_profiles(vault: Connection) -> Documents[Mapping[str, object]]:
    """Return all stored documents by name, and a finding for each that cannot be read."""
    return documents(vault, PROFILES, lambda name: vault.read(layout.profile(name)).data, "profile.unreadable")


class StoredProfiles(Mapping[str, Mapping[str, object]]):
    """The stored documents by name; `partners.catalogue.load` reads them. Each is read when it is asked for."""

    def __init__(self, vault: Connection) -> None:
        self._vault = vault

    def __getitem__(self, name: str) -> Mapping[str, object]:
        stored = self._vault.read_or_none(layout.profile(name)) if NAME.fullmatch(name) else None
        if stored is None:
            raise KeyError(name)
        return stored.data

    def __iter__(self) -> Iterator[str]:
        return iter(listed(self._vault, PROFILES))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def store_profile(vault: Connection, profile: Profile) -> None:
    """Store `profile`, replacing an older one of its name; raise `ConflictError` if another was stored meanwhile."""
    path, wanted = layout.profile(profile.name), to_document(profile)
    stored = vault.read_or_none(path)
    older = stored.data if stored else None

    def replaced(newest: Document | None) -> Document:
        if newest not in (older, wanted):
            hint = f"look at it, and add yours again: broker partner show {profile.name}"
            raise ConflictError(f"another profile {profile.name} was stored meanwhile", hint=hint)
        return wanted

    vault.change(path, replaced)
