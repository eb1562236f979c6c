"""Show what keeps the partner from being asked, and whether the clock that says so is right."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from broker.cli.output import note
from broker.errors import RefusedError

if TYPE_CHECKING:
    from broker.compose import Broker
    from broker.model.account import Account

__all__ = ["say_obstacles", "shown_clock", "shown_obstacles"]


def shown_clock(broker: Broker) -> datetime:
    """Return the time for a command that only shows; say so if it is not Vault's."""
    try:
        return broker.true_clock()
    except RefusedError as error:
        note(f"careful: {error.message}, so what is shown may be wrong; {error.hint}")
        return broker.clock()


def say_obstacles(account: Account, now: datetime) -> None:
    """Say what keeps the partner from being asked about `account`, and how that ends."""
    from broker.model.obstacle import obstacles

    for obstacle in obstacles(account, now):
        note(f"{obstacle.message}: {obstacle.hint}")


def shown_obstacles(account: Account, now: datetime) -> list[dict[str, Any]]:
    """Return the same for JSON."""
    from broker.model.obstacle import obstacles

    return [{"code": o.code, "message": o.message, "until": o.until, "hint": o.hint} for o in obstacles(account, now)]
