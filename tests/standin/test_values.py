"""Parts of the stand-in alone: durations, settings, quota windows, passwords, the import rule."""

from __future__ import annotations

import ast
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import partner_standin
import pytest
from partner_standin.durations import parse_duration
from partner_standin.faults import FAULTS, Active, Faults, UnknownFaultError
from partner_standin.quota import Quota
from partner_standin.registry import Issued, Registry, UnknownLoginError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERDICTS = {
    "ok",
    "handshake",
    "certificate_rejected",
    "login_rejected",
    "client_rejected",
    "not_subscribed",
    "address_refused",
    "wrong_ca",
    "quota",
    "partner_down",
}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1d12h", 129_600), ("15 m", 900), ("7", 7), ("0.5", 0.5), ("-2d", -172_800)]
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "d", "1w", "--1d", "1d x", "1e9", "99999999999", "40000d", "٣s", "1d" * 20])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|hundred years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("setting", "active"),
    [
        ("wrong-ca", Active("wrong-ca", "")),
        ("wrong-ca@2", Active("wrong-ca", "", 2)),
        ("status-503", Active("status-503", "30s")),
        ("status-503=1m@1", Active("status-503", "1m", 1)),
    ],
)
def test_settings_are_parsed(setting: str, active: Active) -> None:
    assert Faults().apply(setting) == active


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "nothing",
        "wrong-ca=1",
        "wrong-ca@0",
        "wrong-ca@x",
        "status-503=soon",
        "quota-day=-1",
        "tls-version",
        "cn-mismatch=402",
    ],
)
def test_unknown_settings_are_refused(setting: str) -> None:
    with pytest.raises(UnknownFaultError):
        Faults().apply(setting)


def test_every_fault_accepts_its_default() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert fault.what
        assert fault.verdict in VERDICTS or fault.place == "desk"
        if not fault.needed:
            assert fault.checked(None) == fault.default


def test_the_table_causes_every_verdict() -> None:
    assert {fault.verdict for fault in FAULTS} >= VERDICTS


def test_threads_take_no_hit_twice() -> None:
    faults = Faults(["wrong-ca@50"])
    taken: list[str] = []

    def take() -> None:
        for _ in range(20):
            value = faults.take("wrong-ca")
            if value is not None:
                taken.append(value)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 50


def test_the_quota_slides() -> None:
    now = NOW
    quota = Quota(lambda: now)
    assert quota.count("a", day=2, burst=None)[0].remaining == 1
    now += timedelta(hours=12)
    assert quota.count("a", day=2, burst=None)[0].reset == 0
    assert quota.count("a", day=2, burst=None)[0].reset == pytest.approx(12 * 3600, abs=120)
    assert quota.count("b", day=2, burst=None)[0].reset == 0, "each application has its own"
    now += timedelta(hours=12, minutes=2)
    assert quota.count("a", day=2, burst=None)[0].reset == 0


def test_passwords_are_stored_as_hashes(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "state.json", lambda: NOW)
    registry.add_account("MZP1", "correct horse")
    text = (tmp_path / "state.json").read_text()
    assert "correct" not in text
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0
    again = Registry(tmp_path / "state.json", lambda: NOW)
    assert again.admits("MZP1", "correct horse", lockout=None)
    assert not again.admits("MZP1", "correct hors", lockout=None)


def test_a_right_password_resets_the_count(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "state.json", lambda: NOW)
    registry.add_account("MZP1", "good")
    for password in ("bad", "good", "bad", "good"):
        registry.admits("MZP1", password, lockout=2)
    assert registry.admits("MZP1", "good", lockout=2)
    assert not registry.account("MZP1").locked


@pytest.mark.parametrize(("login", "password"), [("", "x"), ("a:b", "x"), ("a\nb", "x"), ("a", "")])
def test_logins_with_a_colon_are_refused(tmp_path: Path, login: str, password: str) -> None:
    with pytest.raises(ValueError, match="a login needs a name"):
        Registry(tmp_path / "state.json", lambda: NOW).add_account(login, password)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "state.json", lambda: NOW)
    with pytest.raises(UnknownLoginError):
        registry.set_password("nobody", "x")
    with pytest.raises(UnknownLoginError):
        registry.revoke("ff", NOW)


def test_a_future_revocation_waits(tmp_path: Path) -> None:
    now = NOW
    registry = Registry(tmp_path / "state.json", lambda: now)
    registry.record(Issued("a1", "MZP1", "issuing-1", NOW + timedelta(days=9)), revoke_older_from=None)
    registry.record(
        Issued("b2", "MZP1", "issuing-1", NOW + timedelta(days=9)), revoke_older_from=NOW + timedelta(days=1)
    )
    assert registry.revoked() == frozenset()
    now += timedelta(days=1)
    assert registry.revoked() == {"a1"}


@pytest.mark.parametrize("file", sorted(Path(partner_standin.__file__).parent.glob("*.py")), ids=lambda f: f.name)
def test_it_imports_nothing_of_the_broker(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert not name.startswith("broker") or name.startswith("partner_standin"), f"{file.name}: {name}"
