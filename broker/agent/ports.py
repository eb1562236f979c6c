"""Where the agent puts bundles: files are one output, others stand beside them."""

from datetime import datetime
from pathlib import Path
from typing import Protocol

from broker.model.bundle import Bundle


class Output(Protocol):
    """A place for a bundle, in the form that its readers expect, until its lease ends. Raise `BrokerError`."""

    def write(self, bundle: Bundle) -> None:
        """Put `bundle` there as a whole, in place of an older one. What is there already is not written again.

        An error stops neither the files nor the lease: it is shown, and this is called again soon.
        """

    def remove(self) -> None:
        """Remove what was written, also by an earlier process with the same configuration."""


class Place(Protocol):
    """A place that keeps older generations for a while, for readers that have not heard of the newer one."""

    @property
    def path(self) -> Path:
        """The path of the generation that was written last; its name is the generation's."""

    def write(self, bundle: Bundle) -> None:
        """Put `bundle` there as a whole."""

    def withdraw(self) -> tuple[Path, ...]:
        """Remove what was written; return what stays."""

    def prune(self, now: datetime) -> None:
        """Remove older generations whose time is over."""

    def has(self, generation: str) -> bool:
        """Return whether the generation with this name is there."""

    def close(self) -> None:
        """Release what is held open."""
