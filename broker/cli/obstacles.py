"""Show what prevents a request to the partner, and whether the clock that decides it is right."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from broker.cli.output import note
from broker.errors import RefusedError
from broker.model.todo import Obstacle

if TYPE_CHECKING:
    from broker.compose.graph import Broker


def shown_clock(broker: Broker) -> datetime:
    """Return the time for a command that only shows; warn if it differs from Vault's."""
    try:
        return broker.true_clock()
    except RefusedError as error:
        note(f"warning: {error.message}, so what is shown may be wrong; {error.hint}")
        return broker.clock()


def show_obstacles(obstacles: Iterable[Obstacle]) -> None:
    """Print each obstacle and the command that ends it."""
    for obstacle in obstacles:
        note(f"{obstacle.message}: {obstacle.hint}")
