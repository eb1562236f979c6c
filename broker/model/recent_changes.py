"""The change document: what changed lately that consumers must hear of. Services watch it for those who wait."""

from dataclasses import dataclass
from typing import Final, Self

from broker.model.history import Event

ACCOUNTS: Final = "accounts/"  # before the name of an account
CONSUMERS: Final = "consumers/"  # before the entity of a consumer
KEPT: Final = 64  # changes in the document: who missed more looks at everything
HEARD: Final = frozenset(
    event.value
    for event in (
        Event.GENERATION_MOVED,
        Event.ACCOUNT_SUSPENDED,
        Event.ACCOUNT_RESUMED,
        Event.ACCOUNT_REMOVED,
        Event.APPLICATION_REMOVED,
    )
)  # kinds of an account's evidence that are announced


@dataclass(frozen=True, slots=True)
class RecentChanges:
    """The last changes, each by the path of the document that changed, the oldest first. `number` counts all."""

    number: int = 0
    paths: tuple[str, ...] = ()

    def with_(self, path: str) -> Self:
        """Return the document with one more change."""
        return type(self)(self.number + 1, (*self.paths, path)[-KEPT:])

    def since(self, number: int | None) -> frozenset[str] | None:
        """Return the paths that changed after change `number`; None if that is not known, so that all may have."""
        if number is None or self.number - number > len(self.paths):
            return None
        missed = max(0, self.number - number)  # a node that is behind shows fewer
        return frozenset(self.paths[len(self.paths) - missed :])
