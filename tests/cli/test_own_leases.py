"""A consumer's own leases by their ids: `lease list`, `show` and `revoke` through a service."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.copies import replace
from broker.model.holdings import Holding
from tests.cli.test_own_lease import Host, Leases
from tests.fetching.test_service import served
from tests.support.accounts import MZP

ONE, TWO = "0a" * 16, "0b" * 16


@pytest.fixture
def host() -> Iterator[Host]:
    now = datetime.now(UTC)
    one = Holding(MZP, "fleet", "direct", 1, ONE, now, now + timedelta(minutes=30))
    held = [one, replace(one, generation=2), replace(one, application="night", lease=TWO, shared=True)]
    bundles = Leases(held=held)
    with served(bundles) as address, tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        yield Host(bundles, address, Path(home))


def test_own_leases_are_listed(host: Host) -> None:
    listed = host.ok("lease list")
    assert [line.split()[:3] for line in listed.out.splitlines()[1:]] == [
        [ONE[:12], f"{MZP}/fleet", "1"],
        [ONE[:12], f"{MZP}/fleet", "2"],
        [f"{TWO[:12]}+", f"{MZP}/night", "1"],
    ]
    assert "further leases" in listed.err
    assert f"through {host.environment['BROKER_ADDR']}" in listed.err
    assert [row["lease"] for row in host.ok(f"lease list {MZP} -o json").json] == [ONE, ONE, TWO]
    assert host.ok("lease list other -o json").json == []
    assert "you hold no lease" in host.ok("lease list other").err


def test_own_lease_is_shown_by_its_id(host: Host) -> None:
    assert [row["generation"] for row in host.ok(f"lease show {ONE[:8]} -o json").json] == [1, 2]
    shown = host.ok(f"lease show {TWO}")
    assert TWO in shown.out
    assert "further leases of this identity" in shown.out


def test_own_lease_is_revoked_by_its_id(host: Host) -> None:
    """In each generation, by one request."""
    revoked = host.ok(f"lease revoke {ONE[:8]}")
    assert all(f"revoked: generation {number} of {MZP}/fleet" in revoked.err for number in (1, 2))
    assert "other leases of the same line stay" in host.ok(f"lease revoke {TWO}").err
    assert host.bundles.texts == [f"{MZP}/fleet/{ONE}", f"{MZP}/night/{TWO}"]


def test_other_ids_are_refused(host: Host) -> None:
    for verb in ("show", "revoke"):
        unknown = host.broker(f"lease {verb} {'0c' * 16}")
        assert (unknown.code, "broker lease list shows yours" in unknown.err) == (2, True)
        assert "service.address ($BROKER_ADDR)" in unknown.err
    host.bundles.held[1] = replace(host.bundles.held[1], lease=f"{ONE[:-1]}b")
    assert "begins the ids of several leases" in host.broker(f"lease revoke {ONE[:8]}").err
    named = host.broker("lease list --consumer other")
    assert (named.code, "lists its own leases only" in named.err) == (2, True)
    renewed = host.broker(f"lease renew {ONE}")
    assert (renewed.code, "not by its id" in renewed.err) == (2, True)
    assert host.bundles.texts == []
