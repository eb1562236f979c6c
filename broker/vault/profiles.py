"""Custom profiles in Vault, where every broker reads them."""

from __future__ import annotations

from collections.abc import Mapping

from broker.errors import ConflictError
from broker.partners.document import to_document
from broker.partners.profile import Profile
from broker.vault import layout
from broker.vault.connection import Connection, Document
from broker.vault.listing import PROFILES, Documents, documents

__all__ = ["own_profiles", "store_profile"]


def own_profiles(vault: Connection) -> Documents[Mapping[str, object]]:
    """Return the stored documents by name; `partners.catalogue.load` reads them."""
    return documents(vault, PROFILES, lambda name: vault.read(layout.profile(name)).data, "profile.unreadable")


def store_profile(vault: Connection, profile: Profile) -> None:
    """Store `profile`, replacing an older one of its name; raise `ConflictError` if another was stored meanwhile."""
    path, wanted = layout.profile(profile.name), to_document(profile)
    stored = vault.read_or_none(path)
    older = stored.data if stored else None

    def replaced(newest: Document | None) -> Document:
        if newest not in (older, wanted):
            raise ConflictError(
                f"another profile {profile.name} was stored meanwhile",
                hint=f"look at it, and add yours again: broker partner show {profile.name}",
            )
        return wanted

    vault.change(path, replaced)
