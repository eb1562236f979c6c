"""Write docs/reference/faults-killed.md from what a whole `make chaos` kept in DIR: `make chaos-pages`.

Where a command's row of a fault is missing, nothing is written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reference" / "faults-killed.md"
HEAD = """\
# Killed anywhere

Written by docs/faults_killed.py from a whole run of `make chaos`; the counts are checked by every `make test`.

At each write of a command one process is killed just before it and one just after it; SIGTERM and SIGINT come one on
either side; and each write to disk fails, in each of the ways below. Then the same command is run again, and must end
as a run that met none: same keys, same requests, same generations, evidence whole, no secret that nothing refers to, no
file beside its own. A write to Vault is every request that is no read, logins
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


KINDS = ("vault", "disk", "partner")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
SERVERS = ("vault start", "vault stop")  # their files are the server's
Row = Mapping[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Write the page from the rows in a directory; where some are missing, say which, and return 1."""
    (folder,) = arguments
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(Path(folder).glob("killed-*.json"))]
    lacking = missing(rows)
    if lacking:
        print(f"error: {folder} is of no whole run of make chaos, it lacks", *lacking, sep="\n  ", file=sys.stderr)
        return 1
    PAGE.write_text("\n".join([HEAD, *counts(rows), "", *faults(rows), ""]), "utf-8")
    return 0


def missing(rows: Sequence[Row]) -> list[str]:
    """Return what a whole run has and `rows` have not: each signal at every command, each fault of a disk at users."""
    writes = {row["command"]: row["writes"] for row in rows if "writes" in row}
    users = [name for name, of in writes.items() if of.get("disk") and name not in SERVERS]
    wanted = {(fault, name) for fault in OUTCOMES for name in (writes if fault in SIGNALS else users)}
    wanted |= {("SIGKILL", row["command"]) for row in rows}
    there = {(row["fault"], row["command"]) for row in rows}
    return sorted(f"{fault}: {name}" for fault, name in wanted - there) or ([] if rows else ["everything"])


def counts(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how many writes each command makes, of each kind, and how often it was killed for them."""
    yield "| command | to Vault | to disk | to the partner | killed |"
    yield "|---|---|---|---|---|"
    killed = sorted((row for row in rows if "writes" in row), key=lambda row: str(row["command"]))
    for row in killed:
        numbers = " | ".join(str(row["writes"].get(kind, 0)) for kind in KINDS)
        yield f"| `{row['command']}` | {numbers} | {row['points']} |"
    yield f"| all | | | | {sum(row['points'] for row in killed)} |"


def rows_of(text: str) -> list[Row]:
    """Return the rows that a page was made of, as far as `missing` looks."""
    counted = re.findall(r"^\| `([^`]+)` \| (\d+) \| (\d+) \| (\d+) \| \d+ \|$", text, re.MULTILINE)
    tried = re.findall(r"^\| ([^|`]+) \| `([^`]+)` \| \d+ \|", text, re.MULTILINE)
    writes = {name: dict(zip(KINDS, map(int, numbers), strict=True)) for name, *numbers in counted}
    return [
        {"fault": fault, "command": name} | ({"writes": writes.get(name, {})} if fault == "SIGKILL" else {})
        for fault, name in tried
    ]


def faults(rows: Sequence[Row]) -> Iterator[str]:
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
