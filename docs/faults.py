"""Write docs/reference/faults.md: what came of each fault of the vault, for each command.

make chaos                   tries them, and keeps in a directory what came of it
python docs/faults.py DIR    takes that over, and writes the page: `make chaos-pages`
python docs/faults.py        writes the page from what was taken over last
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

REFERENCE = Path(__file__).parent / "reference"
RESULTS, PAGE = REFERENCE / "faults.json", REFERENCE / "faults.md"
Outcomes = Mapping[str, Mapping[str, Sequence[int]]]  # fault, command: the exit codes that were seen
HEAD = """\
# When the vault misbehaves

<!-- Written by docs/faults.py from docs/reference/faults.json, which `make chaos` makes: change neither by hand. -->

A proxy between broker and vault lets one fault befall one of a command's requests. {cells} of {whole} such cells were
tried for this page, every one of them or as many as a seed chose. The table says in which exit codes a command ended,
over the requests that the fault was tried at. 0: it got over it by itself, a lost answer having been settled by
reading; 2: Vault said that something is not there; 3: Vault is unavailable; 5: denied; 6: what Vault said is not there
was found missing, or a node told of the past; 8: conflict. Whatever it was, the same command without the fault then
succeeded or had nothing left to do, and keys, passwords and evidence were what the account says. A fault that "stays"
meets all requests from one on.
"""


def main(arguments: Sequence[str]) -> int:
    """Take over the results in a directory, if one is named, and write the page; with `--check`, only compare."""
    if arguments == ["--check"]:
        return int(PAGE.read_text(encoding="utf-8") != page(json.loads(RESULTS.read_text(encoding="utf-8"))))
    if arguments:
        taken = taken_over(Path(arguments[0]))
        RESULTS.write_text(json.dumps(taken, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


def taken_over(folder: Path) -> dict[str, object]:
    """Return how many cells there were, and the exit codes for each fault and command."""
    kept = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("faults-*.json"))]
    rows = [row for run in kept for row in run["rows"]]
    seen: dict[str, dict[str, set[int]]] = {}
    for row in rows:
        fault = f"{row['fault']}, and stays" if row["lasting"] else row["fault"]
        seen.setdefault(fault, {}).setdefault(row["command"], set()).add(row["code"])
    outcomes = {f: {c: sorted(codes) for c, codes in by.items()} for f, by in seen.items()}
    seeds = {run["seed"] for run in kept}
    return {
        "cells": len(rows),
        "whole": sum(run["whole"] for run in kept),
        "seeds": sorted(seeds),
        "outcomes": outcomes,
    }


def page(results: Mapping[str, object]) -> str:
    """Return the page as text."""
    outcomes = results["outcomes"]
    assert isinstance(outcomes, dict)
    return "\n".join([HEAD.format(cells=results["cells"], whole=results["whole"]), *table(outcomes), ""])


def table(outcomes: Outcomes) -> Iterator[str]:
    """Yield a row a fault, a column a command."""
    commands = sorted({command for by in outcomes.values() for command in by})
    yield _row(["fault", *(f"`{command}`" for command in commands)])
    yield _row(["---"] * (len(commands) + 1))
    for fault, by in outcomes.items():
        yield _row([fault, *(" ".join(map(str, by.get(command, ()))) for command in commands)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
