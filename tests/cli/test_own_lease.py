"""A lease that `bundle get` kept in a directory: `lease show`, `renew` and `revoke` through a service."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.agent.files import Files
from broker.agent.store import Store
from broker.compose.graph import Wiring
from broker.copies import replace
from broker.delivery.directory import publishing
from broker.delivery.root import Root
from broker.errors import BrokerError, DeniedError, RefusedError, VaultUnavailableError
from broker.issuing.batch_issuer import Issued
from broker.issuing.grant import Renewed
from broker.model.bundle import Bundle, Wanted
from broker.model.clock import system_clock
from broker.model.holdings import Holding
from broker.model.lease import Caller, Lease
from broker.model.secret import Secret
from broker.service.answers import Contents
from tests.cli.test_exec import Bench, Live
from tests.fetching.test_service import served, usable
from tests.support.accounts import MZP
from tests.support.console import inside
from tests.support.credential_sets import paper
from tests.support.ended import Ended


@dataclass
class Leases(Live):
    """Each bundle has a lease of its own."""

    newer: int | None = None
    age: timedelta = timedelta(0)

    async def grant(self, caller: Caller, wanted: Wanted) -> Issued[Contents]:
        issued = await super().grant(caller, wanted)
        return replace(issued, lease_text=Secret(f"lease-text-{len(self.wanted)}"))

    async def renew(self, caller: Caller, lease_text: Secret[str], ttl: timedelta) -> Renewed:
        return replace(await super().renew(caller, lease_text, ttl), newer=self.newer)

    def _lease(self, ttl: timedelta) -> Lease:
        return replace(super()._lease(ttl), id=f"{len(self.wanted):032x}", first_issued=datetime.now(UTC) - self.age)


class Host(Bench):
    """A host with the files of a bundle in `DIR`."""

    bundles: Leases
    wiring: Wiring | None = None

    def broker(self, line: str) -> Ended:
        words = shlex.split(line)
        return inside(words, home=self.home, environment=self.environment, wiring=self.wiring)

    def ok(self, line: str) -> Ended:
        ended = self.broker(line)
        assert ended.code == 0, ended.err
        return ended

    @property
    def root(self) -> Path:
        return self.home / "DIR"

    @property
    def files(self) -> list[str]:
        """The files of the bundle, and its lease."""
        return sorted(path.name for path in self.root.rglob("*") if path.is_file())

    def get(self, more: str = "") -> Ended:
        return self.ok(f"bundle get mzp-1/fleet --to DIR {more}")


@pytest.fixture
def host() -> Iterator[Host]:
    bundles = Leases()
    found = [replace(usable("fleet", 9), generation=1)]
    with served(bundles, usable=found) as address, tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        yield Host(bundles, address, Path(home))


@pytest.mark.slow
def test_a_lease_is_shown_renewed_and_revoked(host: Host) -> None:
    got = host.get("--ttl 5m")
    assert f"broker lease revoke {host.root}" in got.err
    kept = (host.root / "lease.json").stat()
    assert (stat.S_IMODE(kept.st_mode), kept.st_uid) == (0o600, os.getuid())
    shown = host.ok("lease show DIR -o json")
    assert (shown.json["lease"], shown.json["generation"], shown.json["current"]) == (f"{1:032x}", 1, 1)
    assert f"through {host.environment['BROKER_ADDR']}" in shown.err
    assert "1 (current: 1; ready)" in host.ok("lease show DIR/current").out, "as bundle get prints it"
    over = host.ok("lease show DIR")
    assert "until        ended, or revoked" in over.out, "by its id"
    assert f"broker lease revoke {host.root} removes the files" in over.err
    host.bundles.held = [Holding(MZP, "fleet", "direct", 1, f"{1:032x}", datetime.now(UTC), datetime.now(UTC))]
    assert (shown.json["held"], host.ok("lease show DIR -o json").json["held"]) == (False, True)
    assert not host.ok("lease show DIR -o json").err.partition("removes")[1]
    before = host.files
    renewed = host.ok("lease renew DIR --ttl 30m -o json")
    assert renewed.json["until"] > shown.json["until"]
    manifest = json.loads((host.root / "current/manifest.json").read_bytes())
    assert manifest["expires"] == renewed.json["until"] == host.ok("lease show DIR -o json").json["until"]
    assert host.files == before
    host.ok("lease renew DIR")
    revoked = host.ok("lease revoke DIR")
    assert f"the files in {host.root} are gone" in revoked.err
    assert host.bundles.texts == ["lease-text-1", "renewed-text", "renewed-text"]
    assert not list(host.root.iterdir())
    for said in (got, shown, renewed, revoked):
        assert "-text" not in said.out + said.err
    again = host.broker("lease revoke DIR")
    assert (again.code, "no lease is kept in" in again.err) == (2, True)


def test_all_leases_of_a_directory_are_given_back(host: Host) -> None:
    host.get()
    host.get()
    assert host.ok("lease show DIR -o json").json["lease"] == f"{2:032x}"
    host.ok("lease revoke DIR")
    assert host.bundles.texts == ["lease-text-2", "lease-text-1"]
    assert not list(host.root.iterdir())


def test_a_newer_generation_is_named(host: Host) -> None:
    host.get()
    host.bundles.newer = 2
    ended = host.ok("lease renew DIR")
    found = re.search(r"generation 2 is current: broker (.*) gets it", ended.err)
    assert found
    host.ok(found[1])


def test_the_last_renewal_is_named(host: Host) -> None:
    host.bundles.age = timedelta(hours=23, minutes=45)
    host.get("--ttl 5m")
    assert "it cannot be renewed further" not in host.ok("lease renew DIR --ttl 5m").err
    assert (
        f"it cannot be renewed further: broker bundle get mzp-1/fleet --to {host.root}"
        in host.ok("lease renew DIR --ttl 20m").err
    )


def test_a_lost_right_is_named(host: Host) -> None:
    host.get()
    with served(host.bundles) as address:
        host.environment["BROKER_ADDR"] = address
        ended = host.broker("lease show DIR")
    assert (ended.code, "no right to mzp-1/fleet any more" in ended.err) == (5, True)


def test_an_ended_lease_is_reported(host: Host) -> None:
    host.get("--ttl 5m")
    host.wiring = Wiring(clock=lambda: system_clock() + timedelta(hours=2))
    host.bundles.error = DeniedError("no right to this, or it does not exist")
    ended = host.broker("lease renew DIR")
    assert (ended.code, "the lease ended at" in ended.err) == (5, True)
    assert f"broker bundle get mzp-1/fleet --to {host.root}" in ended.err
    host.ok("lease revoke DIR")
    assert not list(host.root.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (DeniedError("no right"), 5, "set BROKER_AUTH to the identity that fetched the files"),
        (RefusedError("generation 1 is retired", hint="get a new bundle"), 6, "broker bundle get mzp-1/fleet --to"),
        (RefusedError("suspended", hint="broker account resume mzp-1"), 6, "broker account resume mzp-1"),
    ],
)
def test_a_refused_renewal_changes_nothing(host: Host, error: BrokerError, code: int, hint: str) -> None:
    host.get()
    before = [path.read_bytes() for path in host.root.rglob("*") if path.is_file()]
    host.bundles.error = error
    ended = host.broker("lease renew DIR")
    assert (ended.code, "the lease was not renewed" in ended.err, hint in ended.err) == (code, True, True)
    assert [path.read_bytes() for path in host.root.rglob("*") if path.is_file()] == before


def test_a_broker_that_is_away_ends_no_lease(host: Host) -> None:
    """The files go, and what is kept gives the lease back later."""
    host.get()
    host.bundles.error = VaultUnavailableError("Vault is away")
    ended = host.broker("lease revoke DIR")
    assert (ended.code, "the files are gone, but not revoked" in ended.err) == (3, True)
    assert f"broker lease revoke {host.root}" in ended.err
    assert host.files == ["lease.json"]
    missing = host.broker("lease renew DIR")
    assert (missing.code, "are missing or damaged" in missing.err) == (6, True)
    host.bundles.error = None
    host.ok("lease revoke DIR")
    assert host.bundles.texts == ["lease-text-1"]
    assert not list(host.root.iterdir())


def test_files_of_another_lease_stay(host: Host) -> None:
    """As those of a process with --hold, which gives its lease back itself."""
    host.get()
    bundle = replace(paper(generation=2), account=MZP, application="fleet", lease_id="ab" * 16)
    with publishing(host.root, bundle, (), system_clock):
        pass
    for verb in ("show", "renew"):
        ended = host.broker(f"lease {verb} DIR")
        assert (ended.code, "which is not kept there" in ended.err) == (6, True)
    ended = host.ok("lease revoke DIR")
    assert "gen-000002 is kept" in ended.err
    assert sorted(path.name for path in host.root.iterdir()) == ["current", "gen-000002"]


def test_an_agents_directory_is_refused(host: Host) -> None:
    host.get()
    store = Store(host.root)
    assert store.open().granted, "an agent goes on with the lease"
    for line in ("lease renew DIR", "lease revoke DIR", "bundle get mzp-1/fleet --to DIR"):
        ended = host.broker(line)
        assert (ended.code, "another agent uses" in ended.err) == (2, True)
    store.note(copies=("/elsewhere",))
    store.close()
    host.ok("lease renew DIR")
    ended = host.broker("lease revoke DIR")
    assert (ended.code, "an agent wrote the files" in ended.err) == (6, True)
    assert "tls.key" in host.files


@pytest.mark.parametrize(
    ("kept", "code", "message"),
    [("", 2, "no lease is kept"), (f"{9:032x}", 8, "were replaced or removed meanwhile")],
)
def test_a_lost_race_brings_nothing_back(
    host: Host, monkeypatch: pytest.MonkeyPatch, kept: str, code: int, message: str
) -> None:
    """The lease is revoked, or another one fetched, between the service's answer and our write."""
    host.get()
    file, renew = host.root / "lease.json", Leases.renew
    other = file.read_text().replace(f"{1:032x}", kept) if kept else ""

    async def raced(self: Leases, caller: Caller, lease_text: Secret[str], ttl: timedelta) -> Renewed:
        file.write_text(other) if other else file.unlink()
        return await renew(self, caller, lease_text, ttl)

    monkeypatch.setattr(Leases, "renew", raced)
    ended = host.broker("lease renew DIR")
    assert (ended.code, message in ended.err) == (code, True)
    assert (file.read_text() if file.exists() else "") == other


def test_files_of_a_revoked_lease_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process revokes what is kept before the files are written."""
    write = Files.write

    def late(self: Files, bundle: Bundle) -> None:
        (host.root / "lease.json").unlink()
        write(self, bundle)

    monkeypatch.setattr(Files, "write", late)
    ended = host.broker("bundle get mzp-1/fleet --to DIR")
    assert (ended.code, "another process revoked the lease" in ended.err) == (8, True)
    assert not host.files


def test_an_unpublished_lease_is_not_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Root, "point", full)
    assert host.broker("bundle get mzp-1/fleet --to DIR").code == 9
    assert host.files == []
    assert host.bundles.texts == ["lease-text-1"]


def test_a_credential_process_keeps_one_lease(host: Host) -> None:
    line = "bundle get mzp-1/fleet --to DIR -o json"
    first = host.ok(line)
    host.ok("lease renew DIR")
    assert host.ok(line).json["files"] == first.json["files"]
    assert len(host.bundles.wanted) == 1


def test_a_directory_needs_a_service(host: Host) -> None:
    host.get()
    reasoned = host.broker("lease revoke DIR --reason gone")
    assert (reasoned.code, "without further options" in reasoned.err) == (2, True)
    del host.environment["BROKER_ADDR"]
    for verb in ("show", "renew", "revoke"):
        ended = host.broker(f"lease {verb} DIR")
        assert (ended.code, "no broker service is configured" in ended.err) == (2, True)
    (host.root / "lease.json").write_text("{")
    assert "no lease is kept" in host.broker("lease revoke DIR").err
    assert "tls.key" in host.files
