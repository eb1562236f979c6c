"""Common to all commands: help with an example, JSON that parses, errors as data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import stamina

from broker.cli.main import NOUNS, cli
from tests.cli.test_bad_input import setup_token
from tests.support.catalogue import GOOD
from tests.support.cli_harness import CliHarness
from tests.support.console import commands, inside
from tests.support.depth import sampled
from tests.support.sources import ROOT

COMMANDS = dict(commands())
WITH_JSON = [name for name in COMMANDS if not GOOD[name].apart]
SAY_HOW_IT_IS = {"doctor", "vault status", "csr lint", "cert inspect", "vault setup", "partner list"}
FAILING = sorted(set(WITH_JSON) - SAY_HOW_IT_IS, key=lambda name: (GOOD[name].state, name))
HINTED = re.compile(r"broker ([a-z]+)(?: ([a-z]+))?")


@pytest.mark.parametrize("name", [*COMMANDS, *NOUNS, ""])
def test_every_help_has_an_example(name: str, tmp_path: Path) -> None:
    ended = inside([*name.split(), "--help"], home=tmp_path, environment={})
    assert ended.code == 0
    assert ended.out.startswith("Usage: broker")
    assert not ended.err
    if name:
        example = ended.out.partition("Example")[2]
        assert f"broker {name}" in example
        assert not [line for line in example.splitlines() if line.endswith("-") or line.count("'") % 2]  # it is pasted
    assert max(map(len, ended.out.splitlines())) <= 100


def test_broker_alone_prints_its_help(tmp_path: Path) -> None:
    ended = inside([], home=tmp_path, environment={})
    assert (ended.code, ended.err) == (0, "")
    assert "Commands:" in ended.out


def test_nouns_name_all_their_verbs() -> None:
    for noun, text in NOUNS.items():
        group = cli.get_command(click.Context(cli), noun)
        if isinstance(group, click.Group) and noun != "vault":  # whose verbs make two short lists
            named = text.partition(": ")[2].split(", ")
            assert sorted(verb.split()[0] for verb in named) == sorted(group.commands), noun


@pytest.mark.parametrize("name", sampled(COMMANDS, every=6, rest=pytest.mark.slow))
def test_help_fits_a_narrow_terminal(name: str, tmp_path: Path) -> None:
    ended = inside([*name.split(), "--help"], home=tmp_path, environment={"COLUMNS": "60"})
    assert max(map(len, ended.out.splitlines())) <= 60


def test_help_of_bundle_explains_each_file(tmp_path: Path) -> None:
    ended = inside(["bundle", "get", "--help"], home=tmp_path, environment={})
    assert re.search(r"keystore\.p12 +key and certificate as PKCS#12", ended.out)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    for param in COMMANDS[name].params:
        if isinstance(param, click.Option) and param.name != "profile":
            assert param.help, param.name
            assert param.help.endswith((".", "]")), param.help


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(WITH_JSON) - {"vault setup"}))  # its good line prints a script
def test_what_is_printed_as_json_can_be_read(harness: CliHarness, name: str) -> None:
    harness.put(GOOD[name].state)
    token = {"VAULT_TOKEN": setup_token(harness)} if GOOD[name].administers else {}
    harness.prepare(name)
    ended = harness.run(f"{harness.good(name)} -o json", input=GOOD[name].input, env=token)
    assert isinstance(json.loads(ended.out), dict | list)
    assert ended.code == 0, ended.err


def test_every_command_that_answers_takes_json() -> None:
    assert [n for n, c in COMMANDS.items() if not any("-o" in param.opts for param in c.params)] == ["demo", "exec"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "init --vault embedded --out -",
        "evidence export -",
        "csr submit acme --out -",
        "vault enrol reader --right acme/reporting --token-file -",
    ],
)
def test_json_and_a_file_do_not_share_stdout(harness: CliHarness, line: str) -> None:
    harness.put("requested")
    ended = harness.run(f"{line} -o json")
    assert refused(ended)["message"].startswith("standard output takes either ")
    assert ended.code == 2


def refused(ended: Any) -> dict[str, Any]:
    """Return the error that a program reads, and check that people read it too."""
    found = json.loads(ended.out)
    assert set(found) == {"version", "success", "code", "message", "hint", "retryable", "verdict"}
    assert found["success"] is False
    assert found["message"]
    assert found["hint"] is None or found["hint"] in ended.err
    assert found["retryable"] is (
        found["code"] in ("vault-unavailable", "partner-unavailable", "mail-unavailable", "conflict", "storage-full")
    )
    assert "rror" in ended.err
    return dict(found)


@pytest.mark.parametrize("name", sampled(FAILING, every=10, rest=pytest.mark.slow))
def test_error_is_json_on_request(harness: CliHarness, name: str) -> None:
    harness.put(GOOD[name].state)
    with stamina.set_testing(True, attempts=1):
        away = harness.run(f"{harness.good(name)} -o json", env={"VAULT_ADDR": "unix:///nowhere/vault.sock"})
    if name in ("config check", "config show", "init", "partner show", "vault env"):
        assert away.code == 0
    else:
        assert refused(away)["code"] == "vault-unavailable"
        assert away.code == GOOD[name].failing(3)
    nonsense = harness.run(f"{harness.good(name)} --nonsense -o json")
    assert refused(nonsense)["code"] == "input"
    assert nonsense.code == GOOD[name].failing(2)
    spoilt = harness.run(f"{harness.good(name)} -ojson", env={"BROKER_CONFIG": "nowhere.toml"})
    if name != "partner show":
        assert refused(spoilt)["code"] == "input"


@pytest.mark.parametrize("flags", ["-o json", "-ojson", "--output json", "--output=json"])
def test_json_option_has_every_spelling(harness: CliHarness, flags: str) -> None:
    harness.put("promoted")
    assert refused(harness.run(f"account show nobody {flags}"))["code"] == "unknown-name"
    assert refused(harness.run(f"{flags} account list"))["code"] == "input"


def test_fault_is_reported_without_its_text(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.put("promoted")

    def broken(*_: object) -> None:
        raise RuntimeError("pass-not-to-be-shown")

    monkeypatch.setattr("broker.cli.account._shown", broken)
    ended = harness.run("account list -o json")
    assert ended.code == 1
    assert refused(ended)["code"] == "unexpected"
    assert "RuntimeError at" in ended.err
    assert "pass-not-to-be-shown" not in ended.out + ended.err


def test_every_command_in_a_hint_exists() -> None:
    known = {name for name, _ in commands()} | set(NOUNS)
    missing = []
    for file in sorted((ROOT / "broker").rglob("*.py")):
        for noun, verb in HINTED.findall(file.read_text(encoding="utf-8")):
            if noun not in NOUNS:
                continue
            group = isinstance(cli.get_command(click.Context(cli), noun), click.Group)
            if group and verb and f"{noun} {verb}" not in known:
                missing.append(f"{file.name}: broker {noun} {verb}")
    assert not missing
