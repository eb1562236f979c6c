"""Where the agent puts bundles: files are one output, others stand beside them."""

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
