"""The end of a command: exit code and output."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Ended"]


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a command: exit code and output."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)
