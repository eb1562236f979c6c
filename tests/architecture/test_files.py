"""No file of the project names a package registry or a path of a machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT, committed, label

# In pieces, or this file would be the first to be caught.
PUBLIC = [re.escape(".".join(parts)) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
HOME = "|".join(f"/{name}/[a-z]" for name in ("home", "Users", "work"))
LOCKS = {"uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "pdm.lock"}


def files() -> list[Path]:
    return [file for file in committed() if file.stat().st_size < 2_000_000]


def configured_hosts() -> set[str]:
    """Return the package hosts that pip uses on this machine."""
    asked = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return set(re.findall(r"https?://(?:[^/@\s']*@)?([^/:\s']+)", asked.stdout))


def test_there_are_files_to_read() -> None:
    assert ROOT / "pyproject.toml" in files()


@pytest.mark.slow
def test_no_registry_or_machine_path() -> None:
    hosts = [re.escape(host) for host in configured_hosts() - {"localhost"}]
    forbidden = re.compile("|".join([*PUBLIC, *hosts, HOME, re.escape(f"{ROOT}/")]))
    found = {}
    for file in files():
        match = forbidden.search(file.read_bytes().decode(errors="replace"))
        if match:
            found[label(file)] = match.group()
    assert not found


def test_no_test_has_a_wall_clock_limit() -> None:
    """A slow or busy machine would fail it. Let the other side wait for ever, so that only leaving it ends the test."""
    limit = re.compile(r"assert .*\btime\.(?:monotonic|perf_counter|time)\(\) - [\w.]+ <")
    tests = [file for file in files() if file.suffix == ".py" and ROOT / "tests" in file.parents]
    assert tests
    assert not [label(file) for file in tests if limit.search(file.read_text(encoding="utf-8"))]


def test_no_lock_file_records_registries() -> None:
    assert not [label(file) for file in files() if file.name in LOCKS]


@pytest.mark.parametrize("kind", [file.stem for file in (ROOT / "requirements").glob("*.txt")])
def test_every_requirement_is_pinned_by_hash(kind: str) -> None:
    text = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9.-]+)(.*?)(?=^[a-z]|\Z)", text, re.MULTILINE | re.DOTALL)
    assert pins
    assert not [name for name, rest in pins if not re.match(r"==[^\s;]+ ?.*\\\n\s+--hash=sha256:[0-9a-f]{64}", rest)]


def test_names_of_tests_are_short() -> None:
    """At most 40 characters after `test_`; detail goes into the docstring."""
    tests = [file for file in files() if label(file).startswith("tests/") and file.suffix == ".py"]
    names = [name for file in tests for name in re.findall(r"def test_(\w+)", file.read_text(encoding="utf-8"))]
    assert len(names) > 2000
    assert [name for name in names if len(name) > 40] == []
