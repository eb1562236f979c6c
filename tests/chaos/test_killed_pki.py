"""`csr submit --via vault-pki`, killed at each of its writes and run again: one candidate, one answered request."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.model.names import AccountName
from broker.model.role import Role
from broker.vault.policies import policy_name, role_policy
from tests.chaos.kill_harness import Ground
from tests.chaos.killing import Killable, signalled
from tests.chaos.mount_snapshot import fresh
from tests.support.counts import TALLY
from tests.support.saved_states import ACCOUNT, account_faults

KILLS: Final = tuple(signalled(signal.SIGKILL, phase) for phase in ("before", "after"))
SUBMIT: Final = ("csr", "submit", ACCOUNT, "--via", "vault-pki")


@pytest.fixture
def engine(field: Ground) -> Iterator[Killable]:
    """An engine with the CA of the stand-in, on which the rotator has its right; it yields the processes."""
    vault = field.system.vault
    admin, mount = vault.admin, f"pki-{vault.settings.mount}"
    admin.call("POST", f"sys/mounts/{mount}", {"type": "pki", "config": {"max_lease_ttl": "20000h"}})
    ca = field.system.partner.authorities.issuing[-1]
    key = ca.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    admin.call("POST", f"{mount}/config/ca", {"pem_bundle": key + ca.pem})
    admin.call("POST", f"{mount}/roles/partner", {"ttl": "17520h", "key_type": "rsa"})
    policy = f"sys/policies/acl/{policy_name(vault.settings.mount, 'rotator')}"
    before = admin.ask("GET", policy)["data"]["policy"]
    admin.call(
        "POST",
        policy,
        {"policy": role_policy(Role.ROTATOR, mount=vault.settings.mount, pki=[f"{mount}/sign-verbatim/partner"])},
    )
    own = field.system.home / "engine.toml"
    own.write_text(
        (field.system.home / "broker.toml").read_text() + f'\n[accounts.{ACCOUNT}]\npki = "{mount}/partner"\n'
    )
    yield Killable({**field.system.environment, "BROKER_CONFIG": str(own)})
    admin.call("POST", policy, {"policy": before})
    admin.call("DELETE", f"sys/mounts/{mount}")


def begin(field: Ground) -> None:
    fresh(field.here)
    field.saved.put("again")


def end(field: Ground) -> list[Any]:
    faults = list(account_faults(field.system.vault.admin, AccountName(ACCOUNT)))
    account = field.saved.account()
    assert account
    sent = [(r.number, r.closed, [s.via for s in r.submissions]) for r in account.requests]
    return [faults, sent, [(g.number, g.stage) for g in account.generations]]


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_killed_with_an_engine_it_ends_the_same(field: Ground, engine: Killable) -> None:
    begin(field)
    calm, wrong = engine.run(*SUBMIT, cwd=field.here), []
    assert calm.code == 0, calm.ended.err
    expected = end(field)
    assert not expected[0]
    for point in calm.points:
        for kill in KILLS:
            begin(field)
            struck = engine.run(*SUBMIT, cwd=field.here, at=point.number, fault=kill)
            again = engine.run(*SUBMIT, cwd=field.here)
            TALLY["kill points"] += 1
            if struck.code != -signal.SIGKILL or again.code not in (0, 6) or end(field) != expected:
                wrong.append(f"{point} {kill['phase']}: {struck.code}, {again.code} {again.ended.err}: {end(field)}")
    assert not wrong, "\n".join(wrong[:8])
