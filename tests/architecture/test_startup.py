"""Start-up cost of a command: the modules that may not be loaded by then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from broker.__main__ import main
sys.argv = ["broker", *sys.argv[1:]]
try:
    main()
finally:
    sys.stdout.flush()
    print(*sys.modules, file=sys.stderr)
"""
# Beside each, what it costs on a laptop, in milliseconds; python itself takes 13.
NEVER = {
    "asyncio",
    "concurrent.futures",
    "cryptography",  # 70
    "ctypes",
    "email",
    "getpass",
    "http.client",  # 50
    "jwt",
    "logging",
    "msgspec",
    "multiprocessing",
    "requests",  # 126
    "rich",  # 65
    "socket",
    "ssl",  # 39
    "stamina",
    "subprocess",
    "tomllib",
    "unittest",
    "urllib.request",
    "xml",
}
NEVER_FOR_VERSION = NEVER | {"click", "argparse", "importlib.metadata", "inspect", "json", "pathlib", "re", "typing"}


def loaded_by(*arguments: str) -> tuple[str, set[str]]:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return ended.stdout, set(ended.stderr.split())


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_loads_next_to_nothing(flag: str) -> None:
    said, modules = loaded_by(flag)
    assert said.startswith("broker ")
    assert not modules & NEVER_FOR_VERSION
    assert [m for m in sorted(modules) if m.startswith("broker")] == ["broker", "broker.__main__"]


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_loads_click_and_no_noun(flag: str) -> None:
    said, modules = loaded_by(flag)
    assert "Commands:" in said
    assert not modules & NEVER
    rooms = {m for m in modules if m.startswith("broker")}
    bare = {"broker", "broker.__main__", "broker.errors", "broker.signals", "broker.cli"}
    assert rooms <= bare | {
        "broker.cli.main",
        "broker.cli.exits",
        "broker.cli.output",
        "broker.telemetry",
        "broker.telemetry.log",
    }


def test_config_show_loads_no_vault_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    said, modules = loaded_by("config", "show", "-o", "json")
    assert '"settings"' in said
    assert not modules & {"requests", "urllib3", "stamina", "broker.vault.connection"}


def test_the_agent_loads_no_big_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All modules of the way are loaded before the service is asked, which is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_ADDR", "http://127.0.0.1:1")
    monkeypatch.setenv("BROKER_AUTH", "jwt-env:BROKER_ADDR")
    (tmp_path / "broker.toml").write_text('version = 1\n[[bundles]]\napplication = "a/b"\ndirectory = "d"\n')
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "agent", "--once"], capture_output=True, text=True, check=False
    )
    assert "cannot be used: no answer" in ended.stderr
    heavy = {"requests", "urllib3", "cryptography", "jwt", "apscheduler", "asyncio"}
    assert not set(ended.stderr.split()) & {
        *heavy,
        "broker.vault",
        "broker.service",
        "broker.pki",
        "broker.compose.graph",
    }


def test_a_bundle_loads_no_big_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a service that is not there: all modules of the way are loaded before it is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_ADDR", "http://127.0.0.1:1")
    monkeypatch.setenv("BROKER_AUTH", "jwt-env:BROKER_ADDR")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "bundle", "get", "a/b", "--to", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "cannot be used: no answer" in ended.stderr
    heavy = {"requests", "urllib3", "cryptography", "jwt", "logging", "concurrent.futures"}
    assert not set(ended.stderr.split()) & {*heavy, "broker.vault"}
