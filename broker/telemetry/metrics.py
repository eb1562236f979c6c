"""Count what the service does, in plain numbers and without any library: `exposition` shows them to Prometheus.

Nothing here is labelled with what a caller sent. Requests are counted on the event loop alone, the rest by threads.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LEASES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_ANSWERS: Final = ("2xx", "4xx")  # of a Vault that works, whatever it was asked
_lock: Final = threading.Lock()


class Distribution:
    """How many values lie below each bound, and their sum."""

    def __init__(self, bounds: Sequence[float] = _SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound with the number of values up to it, as Prometheus wants it."""
        found, below = [], 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


class Expiry(Struct, frozen=True):
    """Begin and end of a certificate, in Unix time."""

    account: str
    generation: int
    stage: str
    not_before: float
    not_after: float


class Family(Struct, frozen=True):
    """Numbers with labels, by the values of these, for a part of the broker that keeps its own."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]


@dataclass(slots=True)
class Numbers:
    """All numbers of a process. A status is a class such as "2xx"; "none" means no answer."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by route and status
    request_seconds: dict[str, Distribution] = field(default_factory=dict)  # by route
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)  # by status and code of the problem
    issued: int = 0
    renewed: int = 0
    batch_leases: Distribution = field(default_factory=lambda: Distribution(_LEASES))
    batch_seconds: Distribution = field(default_factory=Distribution)
    vault: Counter[str] = field(default_factory=Counter)  # by status
    vault_seconds: Distribution = field(default_factory=Distribution)
    vault_answered: float = 0.0  # Unix time of the newest answer of a Vault that works


_of_process: Final = [Numbers()]


def numbers() -> Numbers:
    """Return the numbers of this process."""
    return _of_process[0]


def reset() -> None:
    """Start again from nothing."""
    _of_process[0] = Numbers()


def status_class(status: int) -> str:
    """Return "2xx" for 201."""
    return f"{status // 100}xx"


def request(route: str, status: int, seconds: float) -> None:
    """Count a request that was answered."""
    found = _of_process[0]
    found.requests[route, status_class(status)] += 1
    if route not in found.request_seconds:
        found.request_seconds[route] = Distribution()
    found.request_seconds[route].add(seconds)


def refusal(status: int, code: str) -> None:
    """Count an answer that is a problem."""
    _of_process[0].refusals[str(status), code] += 1


def batch(seconds: float, renewals: Iterable[bool]) -> None:
    """Count a batch of leases that is durable: `renewals` says of each if it is a renewal."""
    renewed = list(renewals)
    with _lock:
        found = _of_process[0]
        found.batch_seconds.add(seconds)
        found.batch_leases.add(len(renewed))
        found.renewed += sum(renewed)
        found.issued += len(renewed) - sum(renewed)


def vault(status: str, seconds: float) -> None:
    """Count a request to Vault."""
    with _lock:
        found = _of_process[0]
        found.vault[status] += 1
        found.vault_seconds.add(seconds)
        if status in _ANSWERS:
            found.vault_answered = time.time()
