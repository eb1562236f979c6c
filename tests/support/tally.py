"""What the long tests count (histories, kill points, faults), so that their last lines can say how much was tried."""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["TALLY"]

TALLY: Final[Counter[str]] = Counter()  # of this process; tests/chaos/conftest.py adds up those of all
