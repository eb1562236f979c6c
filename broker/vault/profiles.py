"""Profiles of a user's own in Vault, where every broker reads them."""

from __future__ import annotations

from collections.abc import Mapping

from broker.partners.document import to_document
from broker.partners.profile import Profile
from broker.vault import layout
from broker.vault.connection import Connection

__all__ = ["own_profiles", "store_profile"]


def own_profiles(vault: Connection) -> Mapping[str, Mapping[str, object]]:
    """Return the stored documents by name; `partners.catalogue.load` reads them."""
    names = [name for name in vault.list(layout.PROFILES) if not name.endswith("/")]
    return {name: vault.read(layout.profile(name)).data for name in names}


def store_profile(vault: Connection, profile: Profile) -> None:
    """Store `profile`, replacing an older one of its name; raise `ConflictError` if somebody else just did."""
    path = layout.profile(profile.name)
    stored = vault.read_or_none(path)
    if stored is None or stored.data != to_document(profile):
        vault.write(path, to_document(profile), replacing=stored.version if stored else 0)
