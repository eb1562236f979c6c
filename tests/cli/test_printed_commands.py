"""Every command that a message, a hint or a next step names works as it is printed."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import pytest

from tests.support.catalogue import CASES, STATES, Case, filled
from tests.support.cli_harness import CliHarness
from tests.support.printed_commands import literals, printed
from tests.support.printed_run import PrintedRuns
from tests.support.sources import ROOT


@pytest.mark.slow
def test_every_command_in_a_text_is_complete() -> None:
    """All arguments and required options are there, and no option is unknown."""
    wrong = [f"{place}: {found}: {found.fault}" for place, text in literals() for found in printed(text) if found.fault]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "found", "fault"),
    [
        ("it is gone: broker csr new acme makes one", "broker csr new acme", ""),
        ("A=1 broker vault setup --login-dir DIR, then", "A=1 broker vault setup --login-dir DIR", ""),
        ("broker csr new makes one", "broker csr new makes", "'makes' is no value"),
        ("broker app set acme/reporting", "broker app set acme/reporting", "it lacks --client-id"),
        ("broker evidence verify --all shows where", "broker evidence verify --all", ""),
        ("run: broker evidence verify --key", "broker evidence verify --key", "--key has no value"),
        ("broker account ad acme", "broker account ad", "there is no such verb"),
    ],
)  # fmt: skip
def test_command_ends_before_the_prose(text: str, found: str, fault: str) -> None:
    first = next(printed(text))
    assert (str(first), first.fault) == (found, fault)


SHOWING = (
    *("status", "doctor", "account list", "account show acme", "app list acme", "rotation status acme", "explain acme"),
    *("config show", "rotation promote acme", "rotation rollback acme", "csr submit acme", "rotation canary acme"),
    *("bundle get acme/reporting --consumer-token-file reader.token --to made", "cert import acme reply.zip"),
)
AFTER = [case for case in CASES if not (case.apart or case.holds or case.administers or not case.writes)]


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_what_is_shown_in_each_state_works(harness: CliHarness, printed_runs: PrintedRuns, state: str) -> None:
    for line in SHOWING:
        harness.put(state)
        ended = harness.run(line)
        harness.tidy()
        printed_runs.assert_work(ended.out + ended.err, state)


@pytest.mark.slow
@pytest.mark.parametrize("case", AFTER, ids=lambda case: case.name)
def test_the_next_step_of_a_command_works(harness: CliHarness, printed_runs: PrintedRuns, case: Case) -> None:
    reply = "second.zip" if case.state == "again" else "reply.zip"
    given = {"application": "reporting", "number": case.number, "reply": reply, "profile": "own.toml"}
    given |= {"now": f"{datetime.now(UTC):%F}", "token": "reader.token"}
    values = {**harness.saved.values(case.state), **given}
    lines = [shlex.join(filled(line, values)) for line in (*case.before, case.line)]
    harness.put(case.state)
    if case.input:
        (harness.home / "input").write_bytes(case.input)
        lines[-1] = lines[-1].replace("--password-file -", "--password-file input")
    for line in lines:
        ended = harness.run(line)
        assert ended.code == 0, ended.err
    printed_runs.assert_work(ended.out + ended.err, case.state, before=lines)


@pytest.mark.slow
def test_steps_after_init_make_doctor_content(harness: CliHarness) -> None:
    """In a Vault of one's own, where no role has a login yet; before them, doctor names the step that is missing."""
    harness.put("empty")
    settings = harness.saved.system.vault.settings
    plain = {"VAULT_ADDR": "", "BROKER_CONFIG": "", "BROKER_MOUNT": ""}
    asked = f"init --vault {settings.address} --mount first-day --roles-directory logins --out made.toml"
    steps = list(printed(harness.run(asked, env=plain).err))
    assert [str(step).removesuffix(" --config made.toml") for step in steps] == [
        "VAULT_TOKEN=… broker vault setup --dry-run",
        "VAULT_TOKEN=… broker vault setup --login-dir logins",
        "broker doctor",
    ]
    early = harness.run("doctor --config made.toml", env=plain)
    assert early.code == 6
    (made,) = [found for found in printed(early.out) if "--login-dir" in found.words]
    assert made.words[-1] == str(harness.home / "logins")
    token = harness.saved.system.vault.admin.tokens
    assert token
    for step in steps:
        variables = {"VAULT_TOKEN": token.token().reveal()} if step.variables else {}
        harness.ok(shlex.join(step.words), env=plain | variables)
    for path in ("sys/mounts/first-day", "sys/auth/first-day"):
        harness.saved.system.vault.admin.call("DELETE", path)


@pytest.mark.slow
def test_clients_page_begins_with_what_works(harness: CliHarness) -> None:
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    block = page.partition("```sh\n")[2].partition("```")[0]
    enrol, configure, get = (line.partition("broker ")[2] for line in block.splitlines())
    harness.put("promoted")
    token = harness.saved.system.vault.admin.tokens
    assert token
    harness.ok(enrol, env={"VAULT_TOKEN": token.token().reveal()})
    assert get.endswith(" --hold")  # tests/cli/test_bundle.py holds one
    assert configure.startswith("init --consumer ")  # tests/docs/test_service.py goes through a service
    harness.ok(f"{get.removesuffix(' --hold')} --consumer-token-file reporting.token")
    assert (harness.home / "DIR" / "current" / "tls-combined.pem").exists()
