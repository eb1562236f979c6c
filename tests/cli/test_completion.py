"""Completion in a shell knows accounts and applications, and never disturbs who types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli_harness import CliHarness
from tests.support.sources import ROOT


def completed(harness: CliHarness, words: str, **env: str) -> tuple[list[str], str]:
    """Return what bash is offered for `words`, the last of which is incomplete, and what is on stderr."""
    count = str(len(words.split(" ")) - 1)
    ended = harness.run("", env={"_BROKER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count, **env})
    assert ended.code == 0
    return [line.partition(",")[2] for line in ended.out.splitlines() if line], ended.err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("broker rotation promote a", ["acme"]),
        ("broker rotation promote x", []),
        ("broker status ", ["acme"]),
        ("broker bundle get ac", ["acme/reporting"]),
        ("broker rotation pro", ["promote"]),
        ("broker account sh", ["show"]),
    ],
)
def test_names_are_completed(harness: CliHarness, words: str, offered: list[str]) -> None:
    harness.put("promoted")
    assert completed(harness, words) == (offered, "")
    harness.assert_unchanged()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"VAULT_ADDR": "unix:///nowhere/vault.sock"},
        {"BROKER_CONFIG": "nowhere.toml"},
        {"BROKER_CONFIG": "plain.toml"},
        {"VAULT_ADDR": "http://127.0.0.1:1"},
    ],
    ids=str,
)
def test_completion_is_silent_if_vault_is_away(harness: CliHarness, changes: dict[str, str]) -> None:
    harness.put("promoted")
    assert completed(harness, "broker status ", **changes) == ([], "")


@pytest.mark.slow
def test_bash_completes_as_the_readme_says(harness: CliHarness) -> None:
    harness.put("promoted")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (setup,) = re.findall(r"^eval .*$", readme, re.MULTILINE)
    typed = "COMP_WORDS=(broker status a); COMP_CWORD=2; _broker_completion broker; echo ${COMPREPLY[@]}"
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {**harness.saved.system.environment, "PATH": path}
    done = subprocess.run(
        ["bash", "-c", f"{setup}\n{typed}"],
        cwd=harness.home,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("acme\n", "")
