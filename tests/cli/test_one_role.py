"""A host that has the login of one role works as that role: `broker init` says that it needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from broker.model.role import Role
from tests.cli.test_bad_input import setup_token
from tests.support.catalogue import GOOD
from tests.support.cli_harness import CliHarness

pytestmark = pytest.mark.slow

ONE: Final = [(role,) for role in Role]  # a command without roles in the catalogue works with each
ROTATOR, BOTH = (Role.ROTATOR,), (Role.ROTATOR, Role.CANARY)  # a promotion takes both
# what takes another way through a command
MORE: Final = (
    (ROTATOR, "added", "csr new acme; csr new acme --supersede --yes; csr submit acme --out -"),
    (ROTATOR, "requested", "csr cancel acme --yes; csr cancel acme"),
    (ROTATOR, "rotated", "rotation rollback acme --force --reason down"),
    (BOTH, "promoted", "rotation canary acme --force --reason unlocked"),
)


@pytest.mark.parametrize(
    ("name", "roles"),
    [(c.name, roles) for c in GOOD.values() if c.vault and not c.apart for roles in ([c.roles] if c.roles else ONE)],
)
def test_a_command_needs_only_its_roles(harness: CliHarness, name: str, roles: Sequence[Role]) -> None:
    case = GOOD[name]
    harness.put(case.state)
    harness.prepare(name)
    host = {"BROKER_CONFIG": only(harness, roles)}
    token = {"VAULT_TOKEN": setup_token(harness)} if case.administers else {}
    harness.ok(harness.good(name), input=case.input, env=host | token)


@pytest.mark.parametrize(("roles", "state", "lines"), MORE)
def test_other_ways_need_no_other_role(harness: CliHarness, roles: Sequence[Role], state: str, lines: str) -> None:
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
