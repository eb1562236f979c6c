"""`rotation plan`, `rotation snooze`, `needs-renewal`, and the windows of the configuration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.compose.graph import Wiring
from tests.support.catalogue import SOON
from tests.support.cli_harness import CliHarness

pytestmark = pytest.mark.slow

WINDOWS = """
[rotation.windows.sunday]
cron = "0 3 * * SUN"
timezone = "Europe/Paris"
duration = "2h"

[rotation.freezes.summer]
from = 2099-07-01
until = "2099-08-31"
reason = "nobody is there"
"""


def after(**passed: float) -> Wiring:
    return Wiring(clock=lambda: datetime.now(UTC) + timedelta(**passed))


def configured(harness: CliHarness, more: str) -> dict[str, str]:
    """Write a configuration like the harness's with `more`; return what to change in the environment."""
    (harness.home / "windows.toml").write_text((harness.home / "broker.toml").read_text() + "\n" + more)
    return {"BROKER_CONFIG": "windows.toml"}


def test_the_plan_of_all_fits_80_columns(harness: CliHarness) -> None:
    harness.put("promoted")
    shown = harness.ok("rotation plan").out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split()[:5] == ["ACCOUNT", "PHASE", "NEXT", "STEP", "WHEN"]
    assert "not-due" in shown
    assert "renew" in shown
    assert "scheduler" in shown


def test_the_plan_of_one_shows_every_term(harness: CliHarness) -> None:
    harness.put("promoted")
    env = configured(harness, WINDOWS)
    shown = harness.ok("rotation plan acme", env=env).out
    for words in ("lead-time", "safety", "margin", "share", "in window sunday", "promotion"):
        assert words in shown
    plan = harness.ok("rotation plan acme -o json", env=env).json[0]
    assert [step["action"] for step in plan["steps"]] == ["renew", "reply", "promote"]
    assert [term["name"] for term in plan["terms"] if term["decides"]] == ["share"]
    assert datetime.fromisoformat(plan["steps"][2]["at"]).weekday() == 6


def test_a_plan_warns_if_no_window_comes_in_time(harness: CliHarness) -> None:
    harness.put("promoted")
    env = configured(harness, '[rotation.windows.rare]\ncron = "0 3 29 2 *"\nduration = "1h"\n')
    wiring = after(days=330)
    ended = harness.ok("rotation plan", env=env, wiring=wiring)
    end = harness.ok("rotation plan -o json", env=env, wiring=wiring).json[0]["not_after"]
    if not end.startswith("2028-03"):  # else the leap day lies before it
        assert "warning: acme: promotion: no window opens in time" in ended.err
        assert "renew" in ended.out, "and renewal starts anyway"


def test_a_snooze_is_shown_and_ends(harness: CliHarness) -> None:
    harness.put("promoted")
    line = f"rotation snooze acme --until {SOON} --reason 'partner on holiday'"
    harness.ok(line)
    assert "already: nothing to do" in harness.ok(line).err
    plan = harness.ok("rotation plan acme -o json").json[0]
    assert plan["snoozed"]["reason"] == "partner on holiday"
    assert {term["name"]: term["decides"] for term in plan["terms"]}["snooze"] is False, "it is not due before"
    events = [e["what"] for e in harness.ok("evidence show acme -o json").json]
    harness.ok("rotation snooze acme --end")
    ended = [e["what"] for e in harness.ok("evidence show acme -o json").json]
    assert (events[-1], ended[-1]) == ("renewal-snoozed", "snooze-ended")
    harness.ok("evidence verify acme")


def test_needs_renewal_answers_by_its_code(harness: CliHarness) -> None:
    harness.put("promoted")
    line = "needs-renewal acme"
    assert harness.run(line).code == 1
    assert harness.run(line, wiring=after(days=330)).code == 0
    assert harness.run(f"{line} --renew-before 1d", wiring=after(days=330)).code == 1
    assert harness.run(f"{line} -o json", wiring=after(days=330)).json["needed"] is True
    harness.ok("csr new acme")
    ended = harness.run(line, wiring=after(days=330))
    assert (ended.code, "goes on" in ended.err) == (1, True)
    harness.put("requested")
    ended = harness.run(line)
    assert (ended.code, "hint: broker rotation status acme" in ended.err) == (2, True)


def test_config_shows_and_checks_windows(harness: CliHarness) -> None:
    harness.put("empty")
    env = configured(harness, WINDOWS)
    shown = harness.ok("config show", env=env).out
    assert "0 3 * * SUN" in shown
    assert "nobody is there" in shown
    assert harness.ok("config show -o json", env=env).json["rotation"]["freezes"]["summer"]["from"] == "2099-07-01"
    assert harness.ok("config check -o json", env=env).json["warning"] is None
    rare = configured(harness, '[rotation.windows.rare]\ncron = "0 3 1 1 *"\nduration = "1h"\n')
    assert "warning: no window opens for 3" in harness.ok("config check", env=rare).err


@pytest.mark.parametrize(("more", "words"), [
    ('[rotation.windows.w]\ncron = "never"\nduration = "1h"\n', "[rotation.windows.w]: 'never' is not a cron"),
    ('[rotation.freezes.f]\nfrom = "2026-01-01"\n', "[rotation.freezes.f]: until is missing"),
    ("[rotation.windows.w]\ncron = 3\n", "must be a table of texts"),
    ("[rotation]\nwindows = 3\n", "rotation.windows must be tables"),
    ("[rotation]\nwindows = {w = 3}\n", "rotation.windows must be tables"),
    ('[rotation.windows."a b"]\ncron = "0 3 * * *"\n', "is not a name"),
    ('[rotation.windows.w]\ncrom = "0 3 * * *"\n', "did you mean"),
    ('[rotation.window.w]\ncron = "0 3 * * *"\n', "there is no setting rotation.window"),
])  # fmt: skip
def test_bad_windows_are_refused(harness: CliHarness, more: str, words: str) -> None:
    harness.put("empty")
    env = configured(harness, more)
    for command in ("config check", "status", "rotation run --once"):
        ended = harness.run(command, env=env)
        assert (ended.code, words in ended.err) == (2, True), ended.err


def test_the_next_step_is_the_earliest(harness: CliHarness) -> None:
    """A candidate waits, and an older generation is retired in some days."""
    harness.put("rotated")
    harness.ok("csr new acme --out acme.csr")
    row = harness.ok("rotation plan").out.splitlines()[1].split()
    assert row[:3] == ["acme", "drafted", "send"]


def test_a_sweep_names_what_failed(harness: CliHarness) -> None:
    """Also if it belongs to no account."""
    harness.put("promoted")
    ended = harness.run("rotation run --once", env=configured(harness, '[replies]\nfolder = "/nowhere/replies"\n'))
    assert ended.code == 6
    assert "hint: poll replies: check folder under [replies]" in ended.err


def test_status_shows_phase_and_timeline(harness: CliHarness) -> None:
    harness.put("rotated")
    shown = harness.ok("rotation status acme").out
    for words in ("overlap, since 20", "generation 1 is kept until", "generation 2 became current", "renewal starts"):
        assert words in shown
    status = harness.ok("rotation status acme -o json").json
    assert (status["phase"], status["who"], status["automatic"]) == ("overlap", "nobody", True)
    assert status["hint"] == "", "the way back is not given up early"
    assert status["since"] == status["generations"][1]["since"]
    assert [m["message"] for m in status["timeline"]][-1] == "the current certificate ends"
    assert [step["action"] for step in status["steps"]] == ["retire", "renew", "reply", "promote"]


def test_a_request_sent_by_hand_is_ours(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.ok("csr new acme")
    (by_hand,) = harness.ok("rotation plan acme -o json").json
    assert (by_hand["who"], by_hand["automatic"]) == ("us", False)
    harness.ok("account set acme --submit-via smtp")
    assert harness.ok("rotation plan acme -o json").json[0]["automatic"]
