"""Write faults.md and killed.md of what `make chaos` kept in DIR: python -m tests.chaos.report DIR."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["OUTCOMES", "missing", "written"]

Row = Mapping[str, Any]
KINDS: Final = ("vault", "disk", "partner")
SIGNALS: Final = ("SIGKILL", "SIGTERM", "SIGINT")
SERVERS: Final = ("vault start", "vault stop")  # their files are the server's
OUTCOMES: Final = {
    "SIGKILL": "run again, it ends as if nothing had happened",
    "killed within a write(2)": "the half-written file has a working name, and is gone when run again",
    "SIGTERM": "ends in order: tokens given back, no working file; run again, as if nothing had happened",
    "SIGINT": "as SIGTERM",
    "no space": "reported; nothing half is published; run again, as if nothing had happened",
    "read-only": "as no space",
    "input/output error": "as no space",
    "no room for the content": "as no space",
    "a full disk": "as no space, on a real one",
    "a read-only disk": "as no space, on a real one",
    "directory gone": "as no space, or made again",
}
FAULTS: Final = """\
# When the vault misbehaves

A proxy between broker and vault injects one fault into one of a command's requests. {cells} of {whole} such cells were
tried, every one or as many as the seed chose. The table has the exit codes of each command, over the requests that the
fault was tried at. 0: it recovered; 2: Vault said that something is not there; 3: Vault is unavailable; 5: denied;
6: something was found missing, or a node answered from the past; 8: conflict. Afterwards the same command without the
fault succeeded or had nothing left to do, and keys, passwords and evidence were what the account says. A fault that
"stays" meets all requests from one on.
"""
KILLED: Final = """\
# Killed anywhere

At each write of a command one process is killed just before it and one just after it; SIGTERM and SIGINT come one on
either side; and each write to disk fails, in each of the ways below. Then the same command is run again, and must end
as a run that met none: same keys, same requests, same generations, evidence whole, no secret that nothing refers to,
no file beside its own. Every request to Vault that is no read is a write, logins among them; so is every change of a
file system.
"""


def main(arguments: Sequence[str]) -> int:
    """Write both pages; return 1 if the run was not whole, and say what it lacks."""
    (folder,) = map(Path, arguments)
    lacking = written(folder)
    if lacking:
        sys.stderr.write("\n  ".join([f"note: {folder} is of a partial run of make chaos, it lacks", *lacking, ""]))
    return int(bool(lacking))


def written(folder: Path) -> list[str]:
    """Write both pages and return what a whole run has and this one has not."""
    runs, rows = _read(folder, "faults-*.json"), _read(folder, "killed-*.json")
    cells = [row for run in runs for row in run["rows"]]
    head = FAULTS.format(cells=len(cells), whole=sum(run["whole"] for run in runs))
    (folder / "faults.md").write_text("\n".join([head, *_faults(cells), ""]), encoding="utf-8")
    (folder / "killed.md").write_text("\n".join([KILLED, *_counts(rows), "", *_kills(rows), ""]), encoding="utf-8")
    return missing(rows)


def missing(rows: Sequence[Row]) -> list[str]:
    """Return what `rows` lack: each signal for every command, each fault of a disk for those that write to one."""
    writes = {row["command"]: row["writes"] for row in rows if "writes" in row}
    users = [name for name, of in writes.items() if of.get("disk") and name not in SERVERS]
    wanted = {(fault, name) for fault in OUTCOMES for name in (writes if fault in SIGNALS else users)}
    wanted |= {("SIGKILL", row["command"]) for row in rows}
    there = {(row["fault"], row["command"]) for row in rows}
    return sorted(f"{fault}: {name}" for fault, name in wanted - there) or ([] if rows else ["everything"])


def _read(folder: Path, pattern: str) -> list[Any]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(pattern))]


def _faults(cells: Iterable[Row]) -> Iterator[str]:
    """Yield a row a fault, a column a command."""
    seen: dict[str, dict[str, set[int]]] = {}
    for cell in cells:
        fault = f"{cell['fault']}, and stays" if cell["lasting"] else cell["fault"]
        seen.setdefault(fault, {}).setdefault(cell["command"], set()).add(cell["code"])
    commands = sorted({command for by in seen.values() for command in by})
    yield _line(["fault", *(f"`{command}`" for command in commands)])
    yield _line(["---"] * (len(commands) + 1))
    for fault, by in seen.items():
        yield _line([fault, *(" ".join(map(str, sorted(by.get(command, ())))) for command in commands)])


def _counts(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how many writes of each kind each command makes, and how often it was killed at them."""
    yield "| command | to Vault | to disk | to the partner | killed |"
    yield "|---|---|---|---|---|"
    killed = sorted((row for row in rows if "writes" in row), key=lambda row: str(row["command"]))
    for row in killed:
        yield _line([f"`{row['command']}`", *(str(row["writes"].get(kind, 0)) for kind in KINDS), str(row["points"])])
    yield f"| all | | | | {sum(row['points'] for row in killed)} |"


def _kills(rows: Sequence[Row]) -> Iterator[str]:
    """Yield fault, command, and how it ended."""
    yield "| fault | command | points | exit codes | outcome |"
    yield "|---|---|---|---|---|"
    for row in sorted(rows, key=lambda row: (str(row["fault"]), str(row["command"]))):
        codes = ", ".join(_code(int(code)) for code in sorted(row["codes"], key=int))
        yield _line([row["fault"], f"`{row['command']}`", str(row["points"]), codes, OUTCOMES[row["fault"]]])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(code: int) -> str:
    return str(code) if code >= 0 else f"signal {-code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
