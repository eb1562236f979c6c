"""How a command ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Ended"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)
