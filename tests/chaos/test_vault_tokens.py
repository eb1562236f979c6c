"""A person's own token that ends during a command: the command reports it, and leaves nothing partial."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from broker.embedded.up import Embedded
from broker.model.role import Role
from broker.vault.connection import Connection
from broker.vault.policies import BASE, policy_name
from tests.chaos.fault_cells import COMMANDS, Bench, benched
from tests.support.counts import TALLY
from tests.support.proxy import Cue, Fault
from tests.support.saved_states import LATER
from tests.support.system import Ended
from tests.support.vault import token_of

TRIED = ("csr new", "password set", "rotation promote", "rotation retire", "cert import", "app set", "bundle get")


@pytest.fixture(scope="module")
def bench(vault_server: tuple[Embedded, Connection]) -> Iterator[Bench]:
    with benched(vault_server) as made:
        yield made


def ended_by(bench: Bench, name: str, cue: Cue, ttl: str) -> Ended | None:
    """Run a command with a token of all roles' rights, and `cue`; then again as the roles, which must find it whole.

    Return how it ended, None where it was over before the fault.
    """
    command, admin = COMMANDS[name], bench.saved.system.vault.admin
    policies = [policy_name(admin.settings.mount, part) for part in (BASE, *(role.value for role in Role))]
    token = token_of(admin, policies=policies, ttl=ttl, explicit_max_ttl=ttl, no_default_policy=True)
    bench.saved.put(command.state)
    bare = bench.saved.system.home / "bare.toml"  # says of no role how it logs in
    bare.write_text("version = 1\n")
    ended = bench.ran(command, cue, changes={"VAULT_TOKEN": token.reveal(), "BROKER_CONFIG": str(bare)})
    struck = bool(bench.struck)
    again = bench.ran(command, after=LATER)
    assert again.code in command.done, f"{name} {cue}: then {again.code} {again.err}"
    bench.saved.settle()
    assert not list(bench.saved.faults()), f"{name} {cue}"
    assert ended.code in (0, 5), f"{name} {cue}: {ended.code} {ended.err}"
    assert not ended.code or "hint:" in ended.err, ended.err
    TALLY["fault cells"] += 1
    return ended if struck else None


def revoked_at_each_request(bench: Bench, name: str) -> list[int]:
    codes: list[int] = []
    for nth in itertools.count(1):
        ended = ended_by(bench, name, Cue(Fault.REVOKED, nth=nth), "10m")
        if ended is None:
            return codes
        codes.append(ended.code)
    return codes


@pytest.mark.slow
def test_revoked_token_is_reported(bench: Bench) -> None:
    codes = revoked_at_each_request(bench, "app set")
    assert 5 in codes


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("name", TRIED)
def test_token_revoked_at_any_request(bench: Bench, name: str) -> None:
    assert 5 in revoked_at_each_request(bench, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["csr new", "rotation retire"])
def test_expired_token_is_reported(bench: Bench, name: str) -> None:
    """Every answer is late, and the token has a second to live, which nothing prolongs."""
    ended = ended_by(bench, name, Cue(Fault.LATE, lasting=True), "1s")
    assert ended
    assert ended.code == 5
