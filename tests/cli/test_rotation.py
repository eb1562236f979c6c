"""Rotation on the command line: the partner's answers, the breaker, passwords, ways back, the end of an overlap."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from partner_standin.faults import FAULTS

from broker.compose.graph import Wiring
from broker.model.changes import registering
from broker.model.clock import Stamp
from broker.model.role import Role
from broker.rotation.amend import amend
from broker.vault.accounts import VaultAccounts
from broker.vault.locks import VaultLock
from tests.support.accounts import NOW
from tests.support.cli_harness import CliHarness
from tests.support.system import LOGIN, PASSWORD

pytestmark = pytest.mark.slow

NEW = "a-new-pass:word"
ANSWERED = {"account", "generation", "verdict", "detail"}
# Faults that one request shows. The slow ones are waited for in tests/upstream.
SHOWN = {
    f.name: f
    for f in FAULTS
    if f.place in ("tls", "gate", "quota", "answer") and f.verdict != "ok" and f.value != "DURATION"
}
LATER = ("cn-mismatch", "login-lockout")  # these need another's certificate, and bad passwords before
EXIT = {"partner_down": 4, "quota": 4}


def stages(harness: CliHarness) -> dict[int, str]:
    return {
        g.number: g.stage.value + ("*" if harness.account.rolled_back(g) else "") for g in harness.account.generations
    }


def test_status_says_who_sweeps(harness: CliHarness) -> None:
    """Times have hour and minute. A scheduler that was killed is shown until another one sweeps."""
    harness.put("promoted")
    shown = harness.ok("rotation status acme").out
    assert re.search(r"\nscheduler +no sweep is known\n", shown)
    assert re.search(r"\nrenew +20\d\d-\d\d-\d\d \d\d:\d\dZ \(in \d+d\) +", shown)
    assert re.search(r"\n20\d\d-\d\d-\d\d \d\d:\d\dZ +planned +", shown)
    rotator = harness.saved.system.vault.connection(Role.ROTATOR)
    lock = VaultLock(rotator, "rotator on host-1", lambda: NOW)
    with lock.held():
        shown = harness.ok("rotation status acme").out
        assert re.search(
            r"scheduler +rotator on host-1 sweeps since .*; its lock (ends|was over) 20.*no sweep has ended", shown
        )
    assert "the last sweep ended 20" in harness.ok("rotation status acme").out
    found = harness.ok("rotation status acme -o json").json["scheduler"]
    assert (found["holder"], found["until"]) == ("rotator on host-1", None)


def logins_tried(harness: CliHarness) -> list[str]:
    return [entry.outcome for entry in harness.partner.log.entries() if entry.path]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # CPython leaves a reset socket open
@pytest.mark.parametrize("name", sorted(set(SHOWN) - set(LATER)))
def test_each_fault_has_verdict_and_code(harness: CliHarness, name: str) -> None:
    harness.put("candidate")
    harness.partner.faults.set(name)
    if name == "handshake-failure":
        harness.partner.faults.set("tls-version", "1.2")
    ended = harness.run("rotation canary acme -o json")
    verdict = SHOWN[name].verdict
    code = EXIT.get(verdict, 6)
    assert ended.code == code, ended
    assert set(ended.json) == {"version", "success", "code", "message", "hint", "retryable", "verdict"}
    assert ended.json["verdict"] == verdict
    assert ended.json["code"] == {4: "partner-unavailable", 6: "refused"}[code]
    assert verdict in ended.err
    assert stages(harness) == {1: "candidate"}
    assert harness.ok("rotation status acme -o json").json["canaries"][-1]["verdict"] == verdict


def test_an_answer_that_is_good_is_data_too(harness: CliHarness) -> None:
    harness.put("candidate")
    facts = harness.ok("rotation canary acme -o json").json
    assert set(facts) == ANSWERED
    assert facts["verdict"] == "ok"
    assert harness.ok("rotation promote acme -o json").json["generation"] == 1


def test_rejected_login_waits_for_a_reason(harness: CliHarness) -> None:
    harness.put("candidate")
    harness.partner.faults.set("login-rejected")
    harness.partner.log.clear()
    assert harness.run("rotation promote acme").code == 6
    assert len(logins_tried(harness)) == 1
    for line in ("rotation canary acme", "rotation promote acme", "rotation canary acme --generation 1"):
        ended = harness.run(line)
        assert ended.code == 6
        assert "password set acme" in ended.err
    assert len(logins_tried(harness)) == 1
    assert "rejected the login" in harness.ok("status").out
    harness.partner.faults.clear()
    harness.ok("rotation promote acme --force --reason 'the partner unlocked it'")
    assert stages(harness) == {1: "current"}
    said = [e["facts"].get("reason") for e in harness.ok("evidence show acme -o json").json]
    assert "the partner unlocked it" in said


def test_refused_canary_settles_what_is_due(harness: CliHarness) -> None:
    harness.put("candidate")
    harness.partner.faults.set("login-rejected")
    assert harness.run("rotation canary acme").code == 6
    accounts = VaultAccounts(harness.saved.system.vault.admin)
    amend(
        accounts,
        harness.account.name,
        lambda a: registering.application_set(a, "killed", "", Stamp(NOW, "a killed command")),
    )
    harness.partner.log.clear()
    assert harness.account.outbox
    assert harness.run("rotation canary acme").code == 6
    assert not logins_tried(harness)
    assert not harness.account.outbox
    harness.ok("evidence verify acme")


def test_a_quota_is_waited_for(harness: CliHarness) -> None:
    harness.put("candidate")
    harness.partner.faults.set("quota-day", "0")
    assert harness.run("rotation canary acme").code == 4
    harness.partner.log.clear()
    again = harness.run("rotation canary acme")
    assert again.code in (4, 6, 7), again.err
    assert not logins_tried(harness)


def test_a_pause_is_shown_with_its_way_out(harness: CliHarness) -> None:
    harness.put("candidate")
    harness.partner.faults.set("quota-day", "0")
    assert harness.run("rotation canary acme").code == 4
    harness.partner.faults.clear()
    refused = harness.run("rotation canary acme")
    assert refused.code == 7
    (hint,) = re.findall(r"broker (rotation canary .* TEXT) \(role rotator\)", refused.err)
    until = harness.account.not_before
    assert until
    shown = f"the partner asked us to back off for acme until {until:%F %TZ}: wait until then"
    for line in ("status", "rotation status acme"):
        said = harness.ok(line).err
        assert shown in said
        assert hint in said
    assert harness.ok("status -o json").json[0]["obstacles"][0]["code"] == "pause"
    (found,) = (f for f in harness.run("doctor -o json").json["findings"] if f["code"] == "account.pause")
    assert found["severity"] == "warning"
    assert hint in found["hint"]
    harness.ok(hint)
    assert harness.account.not_before is None


def test_candidate_waits_for_the_partner(harness: CliHarness) -> None:
    harness.put("candidate")
    harness.partner.faults.set("quota-day", "0")
    assert harness.run("rotation canary acme").code == 4
    (row,) = harness.ok("status acme -o json").json
    assert (row["who"], row["hint"]) == ("partner", "")
    assert "generation 1 is ready to be tried; the partner asked us to back off" in row["message"]


def test_rejected_client_marks_its_app(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.partner.faults.set("client-rejected")
    assert harness.run("rotation canary acme").code == 6
    assert harness.ok("app list acme -o json").json[0]["rejected_at"]
    assert "rejected the client_id of acme/reporting" in harness.ok("rotation status acme").err
    harness.partner.faults.clear()
    harness.ok("rotation canary acme")


@pytest.mark.parametrize("overlap", [True, False], ids=["both are good for a while", "the old one dies immediately"])
def test_new_password_is_tried_first(harness: CliHarness, overlap: bool) -> None:
    harness.put("promoted")
    harness.partner.registry.set_password(LOGIN, NEW, overlap=overlap)
    ended = harness.ok("password set acme --password-file -", input=f"{NEW}\n".encode())
    assert "candidate 2 uses it" in ended.err
    assert NEW not in ended.out + ended.err
    assert stages(harness) == {1: "current", 2: "candidate"}
    harness.ok("rotation promote acme")
    assert stages(harness) == {1: "previous", 2: "current"}
    harness.ok("bundle get acme/reporting --consumer-token-file reader.token --to bundle")
    assert (harness.home / "bundle/current/password").read_text() == NEW
    harness.ok("rotation retire acme --generation 1")
    assert not any(harness.saved.system.vault.admin.versions("passwords/acme/1").values())


def test_wrong_password_is_never_current(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.ok("password set acme --password-file -", input=b"mistyped")
    assert harness.run("rotation promote acme").code == 6
    assert stages(harness)[1] == "current"
    assert logins_tried(harness) == logins_tried(harness)[:1]
    harness.ok("password set acme --password-file -", input=PASSWORD.encode())
    harness.ok("rotation promote acme")


def test_rollback_keeps_the_displaced_one(harness: CliHarness) -> None:
    harness.put("rotated")
    assert "is current again" in harness.ok("rotation rollback acme").err
    assert stages(harness) == {1: "current", 2: "previous*"}
    assert "was current already: nothing to do" in harness.ok("rotation rollback acme").err
    assert harness.ok("rotation rollback acme -o json").json["changed"] is False
    assert "nothing to promote: generation 1 of acme is current" in harness.ok("rotation promote acme").err
    assert stages(harness) == {1: "current", 2: "previous*"}
    harness.ok("rotation promote acme --generation 2")
    assert [s for s in stages(harness).values() if s == "current"] == ["current"]


def test_rollback_keeps_the_new_password(harness: CliHarness) -> None:
    harness.put("rotated")
    harness.partner.registry.set_password(LOGIN, NEW)
    harness.ok("password set acme --password-file -", input=NEW.encode())
    harness.ok("rotation promote acme")
    facts = harness.ok("rotation rollback acme --generation 1 -o json").json
    joined = harness.account.generation(facts["generation"])
    assert joined.parts.certificate == harness.account.generation(1).parts.certificate
    assert joined.parts.password == 2
    assert harness.account.current == joined


def test_two_parts_are_promoted_together(harness: CliHarness) -> None:
    harness.put("renewed")
    harness.partner.registry.set_password(LOGIN, NEW)
    harness.ok("password set acme --password-file -", input=NEW.encode())
    assert harness.run("rotation promote acme --generation 2").code == 6, "the partner no longer takes the old password"
    harness.ok("password set acme --password-file -", input=NEW.encode())
    assert harness.run("rotation promote acme --generation 2 --generation 4 --generation 1").code == 2
    assert harness.ok("rotation promote acme --generation 2 --generation 4 -o json").json["generation"] == 5
    assert stages(harness) == {1: "previous", 2: "rejected", 3: "rejected", 4: "rejected", 5: "current"}
    again = harness.ok("rotation promote acme --generation 2 --generation 4 -o json").json
    assert (again["generation"], again["changed"]) == (5, False)


def test_untried_rollback_takes_a_reason(harness: CliHarness) -> None:
    harness.put("rotated")
    harness.partner.faults.set("status-500")
    assert harness.run("rotation rollback acme").code == 4
    assert stages(harness)[2] == "current"
    harness.partner.log.clear()
    harness.ok("rotation rollback acme --force --reason 'partner is down'")
    assert stages(harness)[1] == "current"
    assert not logins_tried(harness)


@pytest.fixture
def held(harness: CliHarness) -> CliHarness:
    """A generation that a consumer holds, and that another has displaced."""
    harness.put("renewed")
    harness.ok("bundle get acme/reporting --consumer-token-file reader.token --to bundle")
    harness.ok("rotation promote acme")
    return harness


def test_held_generation_is_not_retired(held: CliHarness) -> None:
    waiting = held.run("rotation retire acme --generation 1 ")
    assert waiting.code == 7
    assert "is still held by" in waiting.err
    assert "--force --reason" in waiting.err
    assert stages(held)[1] == "previous"
    (row, _) = held.ok("rotation status acme -o json").json["generations"]
    assert row["held_by"]
    assert row["held_by"][0] in waiting.err
    shown = held.ok("rotation status acme")
    assert re.search(r"^1 .* 1 consumer *$", shown.out, re.MULTILINE)
    assert max(len(line) for line in shown.out.partition("GENERATION")[2].splitlines()) <= 80
    assert "broker lease list acme" in shown.err


def test_revoked_holder_is_not_waited_for(held: CliHarness) -> None:
    waiting = held.run("rotation retire acme --generation 1").err
    (name, lease, end) = re.findall(r"held by (\S+) \(lease (\w+) since \S+ \S+ until (\S+ \S+Z)\)", waiting)[0]
    assert datetime.strptime(end, "%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC) > datetime.now(UTC)
    assert lease in {row["lease"] for row in held.ok("lease list acme -o json").json}
    revoked = held.ok(f"lease revoke --account acme --consumer {name} --reason 'host is gone' -o json").json
    assert [row["lease"] for row in revoked["leases"]] == [lease]
    held.ok("rotation retire acme --generation 1")
    assert f"lease={lease}" in re.sub(r"\s", "", held.ok("evidence show acme").out)
    assert held.run("evidence verify acme").code == 0


def test_it_is_retired_when_a_person_says_so(held: CliHarness) -> None:
    held.ok("rotation retire acme --generation 1 --force --reason 'reported it twice'")
    assert stages(held)[1] == "retired"
    assert not any(held.saved.system.vault.admin.versions("keys/acme/1").values())


def test_an_ended_lease_counts_ten_minutes_longer(held: CliHarness) -> None:
    """The commands of the hint work then too."""
    later = Wiring(clock=lambda: datetime.now(UTC) + timedelta(minutes=65))
    waiting = held.run("rotation retire acme --generation 1", wiring=later)
    assert waiting.code == 7
    assert "ten minutes more for wrong clocks" in " ".join(waiting.err.split())
    removing = held.run("account remove acme --yes", wiring=later)
    assert "ten minutes more for wrong clocks" in " ".join(removing.err.split())
    held.ok("lease revoke --account acme --generation 1 --reason 'host is gone'", wiring=later)
    held.ok("rotation retire acme --generation 1", wiring=later)
    assert stages(held)[1] == "retired"


def test_generation_retires_after_its_lease(held: CliHarness) -> None:
    later = Wiring(clock=lambda: datetime.now(UTC) + timedelta(hours=2))
    held.ok("rotation retire acme --generation 1", wiring=later)
    assert stages(held)[1] == "retired"


def test_rejected_candidate_can_only_retire(harness: CliHarness) -> None:
    harness.put("renewed")
    harness.ok("rotation reject acme --generation 2 --reason 'wrong subject' --yes")
    assert harness.run("rotation promote acme --generation 2").code == 6
    harness.ok("rotation retire acme --generation 2")
    assert stages(harness) == {1: "current", 2: "retired"}


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("rotated", "rotation retire acme --generation 1"),
        ("renewed", "rotation reject acme --generation 2 --reason 'wrong subject' --yes"),
        ("promoted", "app set acme/reporting --client-id 11111111-1111-4111-8111-111111111111"),
    ],
)
def test_repeated_command_says_it_was_done(harness: CliHarness, state: str, line: str) -> None:
    harness.put(state)
    assert "already" not in harness.ok(line).err
    once = harness.account
    assert harness.ok(line).err.endswith(" already: nothing to do\n")
    assert harness.account == once


def test_same_password_is_reported_as_new(harness: CliHarness) -> None:
    """The operator may not read the first, so that nobody can say that it is the same."""
    harness.put("promoted")
    for number in (2, 3):
        shown = harness.ok("password set acme --password-file -", input=NEW.encode()).err
        assert f"password {number} of acme is stored" in shown


def test_status_has_every_generation_and_try(harness: CliHarness) -> None:
    harness.put("rotated")
    facts = harness.ok("rotation status acme -o json").json
    assert set(facts) >= {
        *(
            "phase",
            "since",
            "steps",
            "timeline",
            "account",
            "current",
            "generations",
            "canaries",
            "breaker",
            "not_before",
            "obstacles",
            "rejected",
            "suspended",
        )
    }
    assert set(facts["generations"][0]) >= {
        "number",
        "stage",
        "rolled_back",
        "changes",
        "key",
        "password",
        "not_after",
        "held_by",
    }
    assert facts["current"] == 2
    text = harness.ok("rotation status acme").out
    assert "GENERATION" in text
    assert "VERDICT" in text


def test_canary_tries_the_newest_candidate(harness: CliHarness) -> None:
    harness.put("renewed")
    assert harness.ok("rotation canary acme -o json").json["generation"] == 2
    first = next(line for line in harness.ok("rotation status acme").out.splitlines() if line.startswith("1 "))
    assert first.split()[-1] == "-"
    assert " 0 " not in first


def test_rollback_to_an_expired_set_warns(harness: CliHarness) -> None:
    harness.put("renewed")
    old = harness.account.certificate(harness.account.generation(1).parts.certificate)
    serial, registry = format(int(old.serial.replace(":", ""), 16), "x"), harness.partner.registry
    registry.revoke(serial, datetime.now(UTC))
    try:
        ended = harness.ok("rotation promote acme")
    finally:
        registry.revoke(serial, datetime.max.replace(tzinfo=UTC))  # other tests use it
    assert "a roll-back would fail" in ended.err
    assert harness.ok("rotation status acme -o json").json["current"] == 2
