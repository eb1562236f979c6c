"""The change document: which documents change, and what changed lately. Services watch it (ADR 29)."""

from collections.abc import Mapping
from typing import Final, Self

from msgspec import Struct, field

from broker.copies import replace
from broker.model.account import Account

ACCOUNTS: Final = "accounts/"  # before the name of an account
CONSUMERS: Final = "consumers/"  # before the entity of a consumer
KEPT: Final = 64  # changes in the document: who missed more looks at everything
# Fields of an account that no bundle depends on, beside those that `_delivered` looks into
_OWN: Final = frozenset({
    "subject", "created_at", "contacts", "renew_before", "requests", "certificates", "anchors", "issuing", "trust",
    "secrets", "tries", "breaker", "not_before", "head", "outbox", "doomed_keys", "doomed_secrets", "password_rotation",
})  # fmt: skip
_HEARD: Final = tuple(name for name in Account.__struct_fields__ if name not in _OWN | {"applications", "generations"})


def concerns_consumers(before: Account, after: Account) -> bool:
    """Return whether services must hear of a change: it changes bundles, or who gets them."""
    return _delivered(before) != _delivered(after)


def _delivered(account: Account) -> list[object]:
    generations = [generation for generation in account.generations if generation.stage.deliverable]
    applications = [(application.name, application.client_id) for application in account.applications]
    return [generations, applications, *(getattr(account, name) for name in _HEARD)]


class RecentChanges(Struct, frozen=True):
    """The last changes, each by the path of the document that changed, the oldest first. `number` counts all.

    `pending` are changes that were announced and may not have happened yet: the version that each would replace.
    """

    number: int = 0
    paths: tuple[str, ...] = ()
    pending: Mapping[str, int] = field(default_factory=dict)

    def announced(self, path: str, version: int) -> Self:
        """Return the document with a change of `version` of `path` to come."""
        return replace(self, pending={**self.pending, path: max(version, self.pending.get(path, version))})

    def done(self, path: str, version: int) -> Self:
        """Return the document with one more change: `version` of `path` was replaced, and can be replaced by no other.

        A change of a later version that was announced meanwhile stays.
        """
        pending = {p: v for p, v in self.pending.items() if p != path or v > version}
        return replace(self, number=self.number + 1, paths=(*self.paths, path)[-KEPT:], pending=pending)

    def since(self, number: int | None) -> frozenset[str] | None:
        """Return the paths that changed after change `number`; None if that is not known, so that all may have."""
        if number is None or self.number - number > len(self.paths):
            return None
        missed = max(0, self.number - number)  # a node that is behind shows fewer
        return frozenset(self.paths[len(self.paths) - missed :])
