"""One chain of evidence for each process, however many issuers it makes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.compose.graph import LAG, Broker
from broker.config import resolve
from broker.issuing.batch_issuer import OLDEST
from broker.model.lease import Caller
from broker.model.role import Role
from broker.model.secret import Secret
from broker.vault.evidence import VaultEvidence
from tests.support.vault import TestVault


def a_process(vault: TestVault) -> Broker:
    """Return what one process of the server role builds."""
    given = {"vault.address": vault.settings.address, "vault.mount": vault.settings.mount}
    token = vault.token(Role.SERVER.value)
    return Broker(resolve(flags=given, environment={}, file=None), {"VAULT_TOKEN": token.reveal()})


def test_issuers_share_the_process_chain(vault: TestVault) -> None:
    processes = [a_process(vault) for _ in range(2)]
    for process in processes:
        for consumer in ("one", "two"):
            issuer = process.issuing.issuer(Caller(Secret(consumer)))
            issuer.journal.append("bundle-returned", lease="id", consumer=consumer)
    evidence = VaultEvidence(vault.connection(Role.AUDITOR))
    kept = [evidence.kept(chain).entries for chain in evidence.issuing_chains()]
    assert [[entry.number for entry in entries] for entries in kept] == [[1, 2], [1, 2]]
    for process in processes:
        process.close()


def test_retirement_waits_only_for_recent_changes(vault: TestVault, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("broker.compose.graph.time.sleep", slept.append)
    process = a_process(vault)
    for age in (timedelta(0), timedelta(minutes=14), -timedelta(minutes=14), timedelta(minutes=16)):
        process._wait_for_services(process.clock() - age)
    process.close()
    assert slept == [OLDEST + LAG] * 3
