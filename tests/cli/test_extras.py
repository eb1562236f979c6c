"""A base installation names the part that a command lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli.main import EXTRAS
from broker.partners.catalogue import builtin_source
from tests.support.catalogue import GOOD, filled
from tests.support.system import SUBJECT

PROGRAM = """
import contextlib, importlib.abc, io, json, sys

lacking = set(json.loads(sys.argv[1]))

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in lacking:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocker())
from broker.cli.main import run
ended = []
for line in json.loads(sys.argv[2]):
    err = io.StringIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.redirect_stderr(err):
        code = run(line)
    ended.append([line, code, err.getvalue()])
print(json.dumps(ended))
"""
FREE = {  # commands that a base installation runs, or refuses for another reason
    "agent",  # the same
    "bundle get",  # once a service can be asked
    "cert inspect",
    "config check",
    "config show",
    "csr lint",
    "exec",  # the same
    "init",
    "lease renew",  # the same
    "partner list",
    "partner show",
    "request",  # the same
    "vault env",
    "vault setup",
    "vault status",
    "vault stop",
}


@pytest.mark.slow
def test_every_command_names_a_missing_extra(tmp_path: Path) -> None:
    words: dict[str, str | list[str]] = {
        "account": "acme", "application": "reporting", "number": "1", "accept": ["--accept-ca", "ab" * 32],
        "url": "https://partner.example/v3", "login": "MZP0000001", "consumer": "reader", "csr": "good.csr",
        "subject": [part for pair in SUBJECT for part in ("--subject", pair)],
        "reply": "reply.zip", "token": "reader.token", "profile": "own.toml", "set": "set.json", "holder": "reader",
        "lease": "0123abcd", "arrived": f"acme/{'5eed' * 4}",
    }  # fmt: skip
    lines = {name: filled(good.line, words) for name, good in GOOD.items()}
    environment = {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "none", "HOME": str(tmp_path), "PATH": ""}
    for name in ("reply.zip", "good.csr", "reader.token"):
        (tmp_path / name).write_text("word\n")
    (tmp_path / "set.json").write_text('{"password": "word"}')
    (tmp_path / "own.toml").write_text(builtin_source("stellantis").replace('name = "stellantis"', 'name = "own"'))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(sorted(sum(EXTRAS.values(), ()))), json.dumps(list(lines.values()))],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    silent = [
        (name, code, err)
        for name, (_, code, err) in zip(lines, json.loads(done.stdout), strict=True)
        if name not in FREE and not (code == GOOD[name].failing(2) and "pip install" in err)
    ]
    assert not silent
