"""Helpers of benches that need no package: the interpreter, processes and results."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BIN: Final = ROOT / ".venv" / "bin"
_TICKS: Final = os.sysconf("SC_CLK_TCK")

Row = dict[str, str | float]


def in_venv() -> None:
    """Run this bench with the interpreter of .venv, and let it import broker, the stand-in and the tests' helpers."""
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve() and (BIN / "python").exists():
        os.execv(BIN / "python", [str(BIN / "python"), *sys.argv])
    sys.path[:0] = [str(ROOT), str(ROOT / "standin")]


@functools.cache
def installed() -> Path:
    """Return the directory of the commands of this tree, in an environment with the base install alone."""
    place = ROOT / "build" / "installed"
    pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
    into = [*pip, "--python", str(place / "bin" / "python"), "install"]
    subprocess.run([BIN / "python", "-m", "venv", "--clear", "--without-pip", place], check=True)
    subprocess.run([*into, "--require-hashes", "-r", ROOT / "requirements" / "base.txt"], check=True)
    with tempfile.TemporaryDirectory() as folder:  # pip itself would build it in an environment from the network
        subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True)
        subprocess.run([*into, "--no-deps", *Path(folder).iterdir()], check=True)
    return place / "bin"


def commit() -> str:
    """Return the commit that is measured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def row(subject: str, cell: str, value: float, unit: str, low: float, high: float) -> Row:
    """Return one row of the results."""
    numbers = {"value": value, "min": low, "max": high}
    return {"subject": subject, "cell": cell, "unit": unit} | {name: round(n, 3) for name, n in numbers.items()}


def write(bench: str, rows: list[Row]) -> None:
    """Write the results as JSON."""
    kernel = f"{platform.system()} {platform.release()}"
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, {kernel}, Python {platform.python_version()}"
    file = ROOT / "bench" / "results" / f"{bench}.json"
    file.parent.mkdir(exist_ok=True)
    content = {"bench": bench, "commit": commit(), "machine": machine, "rows": rows}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process and its children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / _TICKS + sum(cpu(int(child)) for child in children)


def resident(pid: int) -> int:
    """Return the resident memory of a process in megabytes."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) // 1024
