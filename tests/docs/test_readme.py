"""README's steps for an existing Vault, typed on a terminal against a server in which nothing is set up."""

from __future__ import annotations

import os
import re
import sysconfig
import venv
from pathlib import Path
from typing import Final

import pytest

from tests.support.sources import ROOT
from tests.support.terminal import Terminal
from tests.support.vault import with_root_token

SECTION: Final = (ROOT / "README.md").read_text(encoding="utf-8").partition("## With a Vault of your own")[2]
LINES: Final = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)[0].splitlines()
ANSWERS: Final = ("{address}", "credential-broker", "", "roles")  # where, which mount, no CA, the roles' files


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A new environment whose packages are the pinned ones of this one: pip reaches no index, and pulls in nothing."""
    made = tmp_path / "venv"
    venv.create(made, symlinks=True)
    inside = sysconfig.get_path("purelib", vars={"base": str(made)})
    Path(inside, "pinned.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made / "bin"


@pytest.mark.slow
@pytest.mark.deep
def test_its_lines_work_in_order(installed: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (installed / "pip").write_text(f'#!/bin/sh\ncd {ROOT} && exec {installed}/python -m pip "$@"\n')
    (installed / "pip").chmod(0o755)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_IGNORE_INSTALLED": "1"}
    with with_root_token() as settings:
        token = settings.token
        assert token
        script = "\n".join(LINES).replace("VAULT_TOKEN=…", f"VAULT_TOKEN={token.reveal()}")
        environment = {"PATH": f"{installed}:{os.environ['PATH']}", "HOME": str(home), **offline}
        with Terminal(["bash", "-euxc", script], cwd=home, env=environment, columns=200) as terminal:
            for question, answer in zip(("Where", "Mount", "File", "Directory"), ANSWERS, strict=True):
                terminal.wait_for(f"{question} ")
                terminal.type(answer.format(address=settings.address) + "\n")
            code = terminal.end()
    assert code == 0, terminal.said
    assert "no errors" in terminal.said
    assert {"broker.toml", "roles"} <= {path.name for path in home.iterdir()}
    assert (installed / "broker").read_text().startswith(f"#!{installed}")
