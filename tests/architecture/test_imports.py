"""Imports go down the ladder, and rooms on one rung do not know each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.sources import BROKER, MODULES, STANDIN, imports, label, room

LADDER: list[set[str]] = [
    {"__init__"},
    {"errors"},
    {"copies", "telemetry", "typed", "memfd"},
    {"model"},
    {"settings"},
    {
        "addresses",
        "partners",
        "pki",
        "child",
        "config",
        "network",
        "paths",
        "signals",
        "systemd",
        "unix_socket",
        "windows",
    },
    {"evidence"},
    {"rotation", "issuing"},
    {"scheduling"},
    {"vault", "upstream", "people", "delivery", "fetching"},
    {"gateway", "embedded"},
    {"service", "agent"},
    {"client"},
    {"compose"},
    {"cli"},
    {"__main__"},
]
RUNG = {name: rung for rung, rooms in enumerate(LADDER) for name in rooms}

LIGHT = ("client", "fetching", "agent", "delivery")  # what an application and its agent load
HEAVY = ("stamina", "apscheduler", "broker.vault", "broker.service", "broker.rotation", "broker.issuing")
SERVERS = ("uvicorn", "starlette", "aiohttp", "httptools", "uvloop", "partner_standin")
SMALL_SERVERS = ("http.server", "socketserver")  # of the standard library: the agent answers probes with them

OPTIONAL = ("httpx", "aiohttp")  # of the modules that are for them


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


def importing(files: Iterable[Path], *packages: str) -> list[Path]:
    return [file for file in files if any(within(name, packages) for name in imports(file))]


def test_imports_are_absolute() -> None:
    assert not [f"{label(file)}: {name}" for file in MODULES for name in imports(file) if name.startswith(".")]


def test_every_room_has_a_place() -> None:
    known = {room(file) for file in MODULES} | {other for file in MODULES for other in ours(file)}
    assert not known - set(RUNG), "add the room to LADDER above and to docs/design.md"


def test_imports_go_down() -> None:
    """Each room imports only from rooms below it in LADDER."""
    pairs = [(file, other) for file in MODULES for other in ours(file) - {room(file)}]
    assert not [f"{label(file)}: {other}" for file, other in pairs if RUNG[other] >= RUNG[room(file)]]


def test_the_stand_in_imports_no_broker() -> None:
    assert not importing(STANDIN.rglob("*.py"), "broker", "broker_demo")


def test_one_file_talks_to_vault() -> None:
    """And so one file catches what `urllib3` raises there."""
    libraries = ("requests", "urllib3")
    talking = [label(f) for f in MODULES if room(f) == "vault" and any(within(n, libraries) for n in imports(f))]
    assert talking == ["broker/vault/transport.py"]


def test_the_broker_imports_no_stand_in() -> None:
    assert not importing(MODULES, "partner_standin", "broker_demo")


def test_only_the_rim_knows_the_settings() -> None:
    knowing = {room(file) for file in MODULES if ours(file) & {"config", "settings"}}
    assert knowing <= {"fetching", "client", "compose", "cli", "config", "settings"}


def test_only_the_command_line_knows_click() -> None:
    assert {room(file) for file in importing(MODULES, "click")} == {"cli"}


@pytest.mark.parametrize("light", LIGHT)
def test_applications_load_light_modules(light: str) -> None:
    """Transitively: a fresh interpreter imports the whole room and says what it has loaded."""
    extra = importing(MODULES, *OPTIONAL)
    files = [file for file in MODULES if room(file) == light and file not in extra]
    modules = [".".join(file.relative_to(BROKER.parent).with_suffix("").parts) for file in files]
    if not modules:
        pytest.skip(f"there is no broker/{light} yet")
    program = f"import sys, {', '.join(m.removesuffix('.__init__') for m in modules)}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    unwanted = HEAVY + SERVERS + OPTIONAL + (() if light == "agent" else SMALL_SERVERS)
    assert not [name for name in loaded if within(name, unwanted)]
