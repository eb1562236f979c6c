"""Ends of the certificates of all accounts, read slowly in the background, for monitoring."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from broker.errors import BrokerError
from broker.model.account import Account
from broker.model.names import AccountName
from broker.model.stage import Stage
from broker.telemetry import log
from broker.telemetry.metrics import Expiry

_SHOWN: Final = (Stage.CANDIDATE, Stage.CURRENT, Stage.PREVIOUS)
_MOST: Final = 2000  # accounts
_PAUSE: Final = 0.05  # seconds between two accounts: 1,000 take a minute, and Vault hardly notices
_LEAVE: Final = 5.0  # seconds for the one read that may be open at the end
_ROUND: Final = 300.0  # seconds between two rounds


def expiries(account: Account) -> Iterator[Expiry]:
    """Yield begin and end of the certificate of each generation that is current, may be, or may still be held."""
    if account.removed:
        return
    for generation in account.generations:
        if generation.stage in _SHOWN:
            certificate = account.certificate(account.parts_of(generation).certificate)
            begin, end = certificate.not_before.timestamp(), certificate.not_after.timestamp()
            yield Expiry(account.name, generation.number, generation.stage.value, begin, end)


class Expiries:
    """The ends of all certificates as they were in the last round. Enter it to read them in a thread."""

    def __init__(self, names: Callable[[], Sequence[AccountName]], read: Callable[[AccountName], Account]) -> None:
        self._names = names
        self._read = read
        self._found: dict[AccountName, tuple[Expiry, ...]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="expiries", daemon=True)
        self.unread = 0

    def __enter__(self) -> "Expiries":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_LEAVE)

    def all(self) -> list[Expiry]:
        """Return the ends, of all accounts that could be read."""
        return [one for of_account in list(self._found.values()) for one in of_account]

    def refresh(self) -> None:
        """Read all accounts. One that cannot be read now is counted, and keeps what was known of it."""
        names = self._names()
        unread = max(0, len(names) - _MOST)
        for name in names[:_MOST]:
            try:
                self._found[name] = tuple(expiries(self._read(name)))
            except BrokerError:
                unread += 1
            if self._ended.wait(_PAUSE):
                return
        self._found = {name: self._found[name] for name in names if name in self._found}
        self.unread = unread

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                self.refresh()
            except BrokerError as error:
                self.unread = max(1, len(self._found))
                log.error("accounts cannot be listed for metrics", reason=error.message)
            self._ended.wait(_ROUND)
