"""Imports go down the ladder, and rooms on one rung do not know each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import BROKER, MODULES, STANDIN, imports, label, room

LADDER: list[set[str]] = [
    {"__init__"},
    {"errors"},
    {"model"},
    {"partners", "pki", "config", "network", "paths", "signals"},
    {"evidence"},
    {"rotation", "issuing"},
    {"vault", "upstream", "people", "delivery", "telemetry"},
    {"gateway", "client", "embedded"},
    {"service", "agent"},
    {"compose"},
    {"cli"},
    {"__main__"},
]
RUNG = {name: rung for rung, rooms in enumerate(LADDER) for name in rooms}

LIGHT = ("client", "agent", "delivery")  # what an application and its agent load
HEAVY = ("stamina", "apscheduler", "broker.vault", "broker.service", "broker.rotation", "broker.issuing")
SERVERS = ("uvicorn", "starlette", "aiohttp", "httptools", "uvloop", "http.server", "socketserver", "partner_standin")


def ours(file: Path) -> set[str]:
    """Return the rooms a module imports from; "__init__" for a name of the package itself."""
    found = set()
    for name in imports(file):
        package, _, rest = name.partition(".")
        if package == "broker":
            first = rest.partition(".")[0]
            found.add(first if (BROKER / first).is_dir() or (BROKER / f"{first}.py").exists() else "__init__")
    return found


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("file", MODULES, ids=label)
def test_imports_are_absolute(file: Path) -> None:
    assert not [name for name in imports(file) if name.startswith(".")]


@pytest.mark.parametrize("file", MODULES, ids=label)
def test_imports_go_down(file: Path) -> None:
    here = room(file)
    assert here in RUNG, f"{here} has no place in the house: docs/design.md section 4, and LADDER above"
    for other in ours(file) - {here}:
        assert other in RUNG, f"{other} is imported by nobody"
        assert RUNG[other] < RUNG[here], f"{other} is not below {here}"


@pytest.mark.parametrize("file", sorted(STANDIN.rglob("*.py")), ids=label)
def test_the_stand_in_knows_nothing_of_ours(file: Path) -> None:
    assert not [name for name in imports(file) if within(name, ("broker", "broker_demo"))]


@pytest.mark.parametrize("file", MODULES, ids=label)
def test_the_broker_imports_no_stand_in(file: Path) -> None:
    assert not [name for name in imports(file) if within(name, ("partner_standin", "broker_demo"))]


@pytest.mark.parametrize("file", [f for f in MODULES if "config" in ours(f)], ids=label)
def test_only_the_rim_knows_the_settings(file: Path) -> None:
    assert room(file) in {"compose", "cli", "config"}


def test_one_file_talks_to_vault() -> None:
    """And so one file catches what `requests` raises there."""
    talking = [label(f) for f in MODULES if room(f) == "vault" and any(within(n, ("requests",)) for n in imports(f))]
    assert talking == ["broker/vault/transport.py"]


@pytest.mark.parametrize("file", [f for f in MODULES if any(within(n, ("click",)) for n in imports(f))], ids=label)
def test_only_the_command_line_knows_click(file: Path) -> None:
    assert room(file) == "cli"


@pytest.mark.parametrize("light", LIGHT)
def test_what_an_application_loads_is_light(light: str) -> None:
    """Transitively: a fresh interpreter imports the whole room and says what it has loaded."""
    modules = [".".join(f.relative_to(BROKER.parent).with_suffix("").parts) for f in MODULES if room(f) == light]
    if not modules:
        pytest.skip(f"there is no broker/{light} yet")
    program = f"import sys, {', '.join(m.removesuffix('.__init__') for m in modules)}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if within(name, HEAVY + SERVERS)]
