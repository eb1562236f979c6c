"""How often a consumer may ask."""

from __future__ import annotations

import pytest

from broker.errors import RateError
from broker.issuing import rates
from broker.issuing.rates import Rates


class Uptime:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def allowed(limit: Rates, entity: str, most: int = 10_000) -> int:
    """Return how many requests pass in a row."""
    for count in range(most):
        try:
            limit.take(entity)
        except RateError:
            return count
    return most


def test_a_burst_then_the_rate() -> None:
    uptime = Uptime()
    limit = Rates(10, uptime)
    assert allowed(limit, "a") == 50
    uptime.now += 1
    assert allowed(limit, "a") == 10
    uptime.now += 1000
    assert allowed(limit, "a") == 50, "an idle consumer saves no more than a burst"


def test_consumers_do_not_share_it() -> None:
    limit = Rates(10, Uptime())
    assert (allowed(limit, "a"), allowed(limit, "b")) == (50, 50)


def test_refusals_cost_nothing() -> None:
    uptime = Uptime()
    limit = Rates(10, uptime)
    allowed(limit, "a")
    for _ in range(100):
        with pytest.raises(RateError):
            limit.take("a")
    uptime.now += 0.1
    assert allowed(limit, "a") == 1


def test_no_rate_is_no_limit() -> None:
    assert allowed(Rates(0), "a") == 10_000


def test_its_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_KEPT", 100)
    limit = Rates(10, Uptime())
    for number in range(1000):
        limit.take(str(number))
    assert len(limit._full) == 100
