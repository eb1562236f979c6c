"""`broker evidence` as it is typed: signed in Vault, exported, verified from the file alone."""

from __future__ import annotations

import json
import stat

import pytest

from broker.vault import layout
from tests.support.ended import Ended
from tests.support.system import System

pytestmark = pytest.mark.slow


def verified(system: System, *arguments: str) -> Ended:
    """Verify a file without vault or configuration."""
    alone = {name: system.environment[name] for name in ("PATH", "HOME", "LANG", "PYTHONWARNINGS")}
    kept, system.environment = system.environment, alone
    try:
        return system.run("evidence", "verify", *arguments)
    finally:
        system.environment = kept


def test_evidence_is_verified_elsewhere(system: System) -> None:
    system.added()
    first = system.ok("evidence", "anchor", "-o", "json").json
    assert first["made"] == [1]
    assert system.ok("evidence", "anchor", "-o", "json").json["made"] == []
    assert "nothing new since statement 1" in system.ok("evidence", "anchor").err

    report = system.ok("evidence", "verify", "--all", "-o", "json").json
    assert report["success"] is True
    assert report["key"] == {"sha256": first["key"], "from": "vault"}
    assert [(c["chain"], c["entries"] == c["signed"]) for c in report["chains"]] == [("accounts/acme", True)]
    shown = system.ok("evidence", "verify", "acme")
    assert shown.out.split()[:4] == ["CHAIN", "ENTRIES", "SIGNED", "VERDICT"]
    assert "an administrator can replace it" in shown.err

    system.ok("evidence", "export", "all.jsonl", "--key-to", "anchor.pem")
    alone = verified(system, "--file", "all.jsonl", "-o", "json")
    assert alone.code == 0
    assert alone.json["key"] == {"sha256": first["key"], "from": "file"}
    assert "from the file itself" in verified(system, "--file", "all.jsonl").err
    given = verified(system, "--file", "all.jsonl", "--key", "anchor.pem")
    assert given.code == 0
    assert "given with --key" in given.err
    assert system.ok("evidence", "verify", "--all", "--key", "anchor.pem", "-o", "json").json["key"]["from"] == "given"


def test_damaged_file_names_the_entry(system: System) -> None:
    system.added()
    system.ok("evidence", "anchor")
    system.ok("evidence", "export", "all.jsonl")
    file = system.home / "all.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    third = [line for line in lines if "entry" in line][2]
    third["entry"]["by"] = "nobody"
    file.write_text("\n".join(map(json.dumps, lines)))
    ended = verified(system, "--file", "all.jsonl")
    assert ended.code == 6
    assert "broken" in ended.out
    assert "accounts/acme entry 3 was edited" in ended.err
    report = verified(system, "--file", "all.jsonl", "-o", "json")
    assert report.code == 6
    assert report.json["success"] is False
    assert report.json["chains"][0]["findings"][0]["code"] == "evidence.edited"


def test_damage_in_vault_exits_with_6(system: System) -> None:
    system.added()
    system.ok("evidence", "anchor")
    path = layout.evidence("accounts/acme", 2)
    stored = system.vault.admin.read(path)
    value = {**stored.data["value"], "by": "nobody"}
    system.vault.admin.write(path, {**stored.data, "value": value}, replacing=1)
    ended = system.run("evidence", "verify", "acme")
    assert ended.code == 6
    assert "accounts/acme entry 2 was edited" in ended.err
    assert "was written 2 times" in ended.err
    system.ok("app", "add", "acme/second")
    assert system.run("evidence", "anchor").code == 0, (
        "what was signed and what follows is whole: verify finds the rest"
    )
    assert system.run("evidence", "verify", "--all").code == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify",), "no account is named"),
        (("verify", "acmee"), "there is no account acmee"),
        (("verify", "--all", "--file", "x"), "--file verifies all that is in the file"),
        (("verify", "--file", "gone.jsonl"), "cannot read gone.jsonl"),
        (("verify", "--file", "-", "--key", "-"), "standard input is named twice"),
        (("verify", "--file", "-", "--key", "/dev/null"), "no Ed25519 public key"),
        (("export", "x", "--key-to", "y"), "nothing has been signed yet"),
        (("export", "no/such/directory"), "cannot write"),
    ],
)
def test_impossible_export_writes_nothing(system: System, arguments: tuple[str, ...], words: str) -> None:
    before = set(system.home.iterdir())
    ended = system.run("evidence", *arguments)
    assert ended.code == 2
    assert words in ended.err
    assert set(system.home.iterdir()) == before


def test_a_file_that_is_no_export_is_refused(system: System) -> None:
    (system.home / "x").write_text("hello")
    ended = verified(system, "--file", "x", "-o", "json")
    assert ended.code == 6
    assert ended.json["code"] == "refused"


def test_export_can_be_piped_into_verify(system: System) -> None:
    system.added()
    content = system.ok("evidence", "export", "-").out
    ended = system.run("evidence", "verify", "--file", "-", input=content)
    assert ended.code == 0
    assert "0 signed" not in ended.err


def test_an_export_is_for_its_owner_alone(system: System) -> None:
    system.added()
    system.ok("evidence", "export", "all.jsonl")
    assert stat.S_IMODE((system.home / "all.jsonl").stat().st_mode) & 0o077 == 0
