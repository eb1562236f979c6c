"""The scheduler with a real Vault, a PKI engine in the place of the partner's people, and the stand-in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.compose.graph import Broker, Wiring
from broker.compose.sweeping import Sweeping
from broker.config import resolve
from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.names import AccountName
from broker.model.role import Role
from broker.scheduling.report import Result, SweepReport
from broker.vault import layout
from broker.vault.connection import Phase
from broker.vault.policies import policy_name, role_policy
from tests.support.system import System

pytestmark = pytest.mark.slow
ACME = AccountName("acme")


@dataclass
class Machine:
    """A system whose account `acme` has a certificate of 30 days, and a PKI engine that signs its requests."""

    system: System
    mount: str
    passed: timedelta = timedelta(0)
    writes: list[str] = field(default_factory=list)

    @contextmanager
    def broker(self) -> Iterator[Broker]:
        """Yield the graph of one process, with the moved clock."""

        def observed(phase: Phase, path: str) -> None:
            if phase is Phase.BEFORE:
                self.writes.append(path)

        wiring = Wiring(lambda: datetime.now(UTC) + self.passed, observed)
        config = resolve(flags={}, environment=self.system.environment, file=None, defaults={"actor": "scheduler"})
        made = Broker(config, self.system.environment, wiring=wiring)
        try:
            yield made
        finally:
            made.close()

    def sweep(self, **passed: float) -> list[tuple[str, str]]:
        """Let time pass, and sweep; return what was done, with its result."""
        self.passed += timedelta(**passed)
        with self.broker() as broker:
            return deeds(broker.scheduling.sweeps.sweep())

    @property
    def account(self) -> Account:
        return self.system.account("acme")


def deeds(report: SweepReport) -> list[tuple[str, str]]:
    assert not report.failures, report.failures
    return [(deed.do, deed.result.value) for deed in report.deeds]


@pytest.fixture
def machine(system: System) -> Iterator[Machine]:
    """The engine has the stand-in's own issuing CA, so the stand-in accepts what it signs."""
    admin, mount = system.vault.admin, f"pki-{system.vault.settings.mount}"
    admin.call("POST", f"sys/mounts/{mount}", {"type": "pki", "config": {"max_lease_ttl": "20000h"}})
    ca = system.partner.authorities.issuing[-1]
    key = ca.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    admin.call("POST", f"{mount}/config/ca", {"pem_bundle": key + ca.pem})
    admin.call("POST", f"{mount}/roles/partner", {"ttl": "17520h", "key_type": "rsa"})
    system.requested()
    file = system.reply(lifetime="30d")
    system.ok("cert", "import", "acme", str(file), *system.accepting(), "--client-id-for", "reporting")
    system.ok("rotation", "promote", "acme")
    system.ok("account", "set", "acme", "--promotion", "auto", "--submit-via", "vault-pki", "--renew-before", "10d")
    with (system.home / "broker.toml").open("a") as configuration:
        configuration.write(f'\n[accounts.acme]\npki = "{mount}/partner"\n')
    yield Machine(system, mount)
    admin.call("DELETE", f"sys/mounts/{mount}")


def granted(machine: Machine) -> Machine:
    """Give the rotator its right there, as `vault setup` does."""
    vault = machine.system.vault
    hcl = role_policy(Role.ROTATOR, mount=vault.settings.mount, pki=[f"{machine.mount}/sign-verbatim/partner"])
    vault.admin.call("POST", f"sys/policies/acl/{policy_name(vault.settings.mount, 'rotator')}", {"policy": hcl})
    return machine


def test_a_whole_rotation_without_people(machine: Machine) -> None:
    """Due, signed, tried, promoted, overlap, retired; then the old key is destroyed."""
    granted(machine)
    vault = machine.system.vault.admin
    assert machine.sweep() == []
    assert machine.sweep(days=21) == [("draft", "done"), ("submit", "done"), ("promote", "done")]
    first, second = machine.account.generations
    assert (first.stage.value, second.stage.value) == ("previous", "current")
    assert machine.account.certificate(second.parts.certificate).not_after > datetime.now(UTC) + timedelta(days=700)
    assert machine.account.request(2).submissions[0].via == "vault-pki"
    assert ("retire", "done") not in machine.sweep(days=6)
    assert ("retire", "done") in machine.sweep(days=2)
    assert machine.account.generation(1).stage.value == "retired"
    assert not any(vault.versions(layout.key("acme", 1)).values())  # destroyed
    assert any(vault.versions(layout.key("acme", 2)).values())
    assert machine.sweep(days=1) == []


def test_a_machine_that_may_not_sign_backs_off(machine: Machine) -> None:
    """The reason is recorded, and a grant is all that is missing."""
    machine.passed = timedelta(days=21)
    with machine.broker() as broker:
        (failure,) = broker.scheduling.sweeps.sweep().failures
    assert (failure.do, f"{machine.mount}/sign-verbatim/partner" in failure.message) == ("submit", True)
    assert failure.hint == "broker vault setup grants it, with pki in [accounts.NAME] of its configuration"
    assert "lacks update" in machine.system.run("doctor").out
    granted(machine)
    assert machine.sweep(minutes=4) == []
    assert machine.sweep(minutes=2) == [("submit", "done"), ("promote", "done")]


def test_the_command_tells_what_it_did(machine: Machine) -> None:
    system = machine.system
    assert "nothing to do" in system.ok("rotation", "run", "--dry-run").err
    granted(machine)
    system.ok("csr", "new", "acme")
    shown = json.loads(system.ok("rotation", "run", "--dry-run", "-o", "json").out)
    assert [(deed["do"], deed["result"]) for deed in shown["deeds"]] == [("submit", Result.WOULD.value)]
    assert not machine.account.request(2).submissions
    shown = json.loads(system.ok("rotation", "run", "--once", "-o", "json").out)
    assert [deed["do"] for deed in shown["deeds"]] == ["submit", "promote"]
    system.ok("csr", "new", "acme")
    assert "is signed" in system.ok("csr", "submit", "acme").err
    shown = json.loads(system.ok("rotation", "run", "--once", "-o", "json").out)
    assert [deed["do"] for deed in shown["deeds"]] == ["promote"]
    ended = system.run("rotation", "run", "--once")
    assert (ended.code, "nothing to do" in ended.err) == (0, True)


def test_a_wrong_clock_is_waited_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes either way from Vault's: nothing is written or sent. It goes on when the clock is right again."""
    granted(machine)
    machine.passed = timedelta(days=21)
    with machine.broker() as broker:
        sweeping = Sweeping(broker.scheduling.sweeps, lambda accounts: {})
        for minutes in (10, -10):
            wrong = SimpleNamespace(monotonic=time.monotonic, time=lambda by=minutes: time.time() + 60 * by)
            with monkeypatch.context() as patched:
                patched.setattr("broker.vault.transport.time", wrong)
                broker.roles.connection(Role.ROTATOR).ask("GET", "sys/seal-status")  # an answer by that clock
                sweeping.sweep()
            with pytest.raises(RefusedError, match=r"this machine's clock is (9m|10m).* Vault's"):
                sweeping.check()
        assert not machine.writes
        assert not machine.account.open_request
        broker.roles.connection(Role.ROTATOR).ask("GET", "sys/seal-status")
        sweeping.sweep()
        sweeping.check()
    assert machine.account.generation(2).stage.value == "current"
