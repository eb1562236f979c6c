"""The time and the actor of a change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Stamp:
    """The time (UTC) and the actor of a change, as its evidence shows them."""

    at: datetime
    by: str
