"""Write docs/reference/faults-killed.md from what a long run kept in DIR.

CHAOS_RESULTS=DIR make chaos ARGS='-k killed' && python docs/faults_killed.py DIR
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reference" / "faults-killed.md"
HEAD = """\
# Killed anywhere

Written by docs/faults_killed.py from a whole run of `make chaos`; the counts are checked by every `make test`.

Each command meets a fault at each of its writes, just before it and just after it, one process for each. Then the same
command is run again, and must end as a run that met none: same keys, same requests, same generations, evidence whole,
no secret that nothing refers to, no file beside its own. A write to Vault is every request that is no read, logins
among them; a write to disk is every change of a file system.
"""
OUTCOMES = {
    "SIGKILL": "run again, it ends as if nothing had happened",
    "killed within a write(2)": "the half-written file is under a working name, and gone when run again",
    "SIGTERM": "ends in order: tokens given back, no working file; run again, as if nothing had happened",
    "SIGINT": "as SIGTERM",
    "no space": "told; nothing published that is not whole; run again, as if nothing had happened",
    "read-only": "as no space",
    "input/output error": "as no space",
    "no room for the content": "as no space",
    "a full disk": "as no space, on a real one",
    "a read-only disk": "as no space, on a real one",
    "directory gone": "as no space, or made anew at once",
}


def main(arguments: Sequence[str]) -> int:
    """Write the page from the rows in a directory."""
    (folder,) = arguments
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(Path(folder).glob("killed-*.json"))]
    PAGE.write_text("\n".join([HEAD, *counts(rows), "", *faults(rows), ""]), "utf-8")
    return 0


def counts(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how many writes each command makes, of each kind, and how often it was killed for them."""
    yield "| command | to Vault | to disk | to the partner | killed |"
    yield "|---|---|---|---|---|"
    killed = sorted((row for row in rows if "writes" in row), key=lambda row: str(row["command"]))
    for row in killed:
        numbers = " | ".join(str(row["writes"].get(kind, 0)) for kind in ("vault", "disk", "partner"))
        yield f"| `{row['command']}` | {numbers} | {row['points']} |"
    yield f"| all | | | | {sum(row['points'] for row in killed)} |"


def faults(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield fault, command, and what came of it."""
    yield "| fault | command | points | exit codes | outcome |"
    yield "|---|---|---|---|---|"
    for row in sorted(rows, key=lambda row: (str(row["fault"]), str(row["command"]))):
        codes = ", ".join(_code(int(code)) for code in sorted(row["codes"], key=int))
        outcome = row.get("outcome") or OUTCOMES[row["fault"]]
        yield f"| {row['fault']} | `{row['command']}` | {row['points']} | {codes} | {outcome} |"


def _code(code: int) -> str:
    return str(code) if code >= 0 else f"signal {-code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
