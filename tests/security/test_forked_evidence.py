"""Another entry takes an account's next place of evidence: every command reports it."""

from __future__ import annotations

from typing import Any

import pytest

from broker.model.chain import appended
from broker.model.clock import Stamp
from broker.model.role import Role
from broker.vault import layout
from broker.vault.documents import encoded
from tests.support.accounts import NOW
from tests.support.system import System

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("garbage", [False, True], ids=["an entry", "garbage"])
def test_taken_place_is_reported_everywhere(system: System, garbage: bool) -> None:
    system.renewed()
    system.ok("rotation", "promote", "acme")
    head = system.account("acme").head
    entry = appended("accounts/acme", head, Stamp(NOW, "thief"), "breaker-reset", {"reason": "x"})
    planted: dict[str, Any] = {"x": "planted"} if garbage else encoded(entry)
    place = layout.evidence("accounts/acme", head.number + 1)
    system.vault.connection(Role.OPERATOR).create(place, planted)
    for command in (
        ("rotation", "retire", "acme", "--generation", "1"),
        ("app", "add", "acme/second"),
        ("rotation", "retire", "acme", "--generation", "1"),
    ):
        ended = system.run(*command)
        assert ended.code == 8, ended.err
        assert "broker evidence verify acme" in ended.err
    assert not any(system.vault.admin.versions(layout.key("acme", 1)).values())
    assert system.account("acme").doomed_keys == frozenset()
    doctor = system.run("doctor", "-o", "json")
    assert doctor.code == 6
    (forked,) = [f for f in doctor.json["findings"] if f["code"] == "account.forked"]
    assert (forked["severity"], forked["hint"]) == ("error", "broker evidence verify acme")
    (row,) = system.ok("status", "-o", "json").json
    assert (row["who"], row["hint"]) == ("us", "broker evidence verify acme")
    assert system.run("evidence", "verify", "acme").code == 6
    system.vault.admin.call("DELETE", f"{system.vault.settings.mount}/metadata/{place}")
    system.ok("app", "add", "acme/second")
    system.ok("evidence", "verify", "acme")
