"""A host that has the login of one role works as that role: `broker init` says that it needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from broker.vault.policies import Role
from tests.cli.test_bad_input import administrator
from tests.support.cli_harness import CliHarness
from tests.support.console import GOOD

pytestmark = pytest.mark.slow

OPERATOR, ROTATOR, BOTH = (Role.OPERATOR,), (Role.ROTATOR,), (Role.ROTATOR, Role.CANARY)  # a promotion takes both
WHOSE: Final = {
    "account add": OPERATOR,
    "app add": OPERATOR,
    "app set": OPERATOR,
    "app remove": OPERATOR,
    "password set": OPERATOR,
    "trust set": OPERATOR,
    "partner add": OPERATOR,
    "csr new": ROTATOR,
    "csr submit": ROTATOR,
    "csr cancel": ROTATOR,
    "cert import": ROTATOR,
    "rotation reject": ROTATOR,
    "rotation retire": ROTATOR,
    "rotation canary": (Role.CANARY,),
    "rotation promote": BOTH,
    "rotation rollback": BOTH,
    "bundle get": (Role.SERVER,),
    "evidence anchor": (Role.ANCHOR,),
    **dict.fromkeys(
        (
            *("status", "explain", "account list", "account show", "app list", "csr show", "rotation status"),
            *("evidence show", "evidence verify", "evidence export", "vault enrol"),
        ),
        (Role.AUDITOR,),
    ),
}
ANYBODYS: Final = ("doctor", "vault status")
# what takes another way through a command
MORE: Final = (
    (ROTATOR, "added", "csr new acme; csr new acme --supersede --yes; csr submit acme --out -"),
    (ROTATOR, "requested", "csr cancel acme --yes; csr cancel acme"),
    (ROTATOR, "rotated", "rotation rollback acme --force --reason down"),
    (BOTH, "promoted", "rotation canary acme --force --reason unlocked"),
)


def test_every_command_that_asks_a_vault_is_somebodys() -> None:
    assert {*WHOSE, *ANYBODYS} == {name for name, good in GOOD.items() if good.vault}


@pytest.mark.parametrize(("name", "roles"), [*WHOSE.items(), *((name, (role,)) for name in ANYBODYS for role in Role)])
def test_a_command_needs_no_login_but_that_of_who_acts(harness: CliHarness, name: str, roles: Sequence[Role]) -> None:
    good = GOOD[name]
    harness.put(good.state)
    host = {"BROKER_CONFIG": only(harness, roles)}
    token = {"VAULT_TOKEN": administrator(harness)} if name == "vault enrol" else {}
    harness.ok(harness.good(name), input=good.input, env=host | token)


@pytest.mark.parametrize(("roles", "state", "lines"), MORE)
def test_nor_does_any_other_way_through_it(harness: CliHarness, roles: Sequence[Role], state: str, lines: str) -> None:
    harness.put(state)
    host = {"BROKER_CONFIG": only(harness, roles)}
    for line in lines.split("; "):
        harness.ok(line, env=host)


def only(harness: CliHarness, roles: Sequence[Role]) -> str:
    """Return a configuration that has the logins of `roles` and no other."""
    lines = ["version = 1"]
    for role in roles:
        files = (f'{name}_file = "roles/{role.value}/{name}"' for name in ("role_id", "secret_id"))
        lines += [f"[roles.{role.value}]", *files]
    (harness.home / "host.toml").write_text("\n".join(lines))
    return "host.toml"
