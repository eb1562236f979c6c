"""Results of the faults of a long run, for the table in the documentation."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["keep"]


def keep(command: str, fault: str, codes: Sequence[int], **more: object) -> None:
    """With CHAOS_RESULTS=DIR, keep the results: `tests.chaos.report` makes its tables of these."""
    if folder := os.environ.get("CHAOS_RESULTS"):
        row = {"command": command, "fault": fault, "points": len(codes), "codes": Counter(codes), **more}
        name = f"killed-{command}-{fault}.json".replace(" ", "-").replace("/", "-")
        (Path(folder) / name).write_text(json.dumps(row))
