"""A bundle that is held: it follows rotations, its lease goes on, and what ends it ends it."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.agent import holding
from broker.agent.files import Files
from broker.agent.holding import Held
from broker.cli.output import note
from broker.copies import replace
from broker.delivery import directory
from broker.delivery.root import LeftBehindError, Root
from broker.errors import BrokerError, ConflictError, DeniedError, RefusedError, VaultUnavailableError
from broker.fetching.identity import Identity
from broker.model.bundle import Granted, Wanted
from broker.model.clock import system_clock
from broker.model.lease import BundleKind, Consumer, Lease
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.waiting import Ended, Event
from broker.signals import held_back
from tests.support.credential_sets import paper

WANTED = Wanted(AccountName("mzp-1"), "reporting", timedelta(hours=1))


@dataclass
class Source:
    """Bundles in memory. `errors` are raised, one by one, by the next grants and renewals."""

    renews: bool = True
    current: int = 1
    term: timedelta = timedelta(hours=1)
    errors: list[BrokerError] = field(default_factory=list)
    news: queue.SimpleQueue[Ended | BrokerError] = field(default_factory=queue.SimpleQueue)
    granted: list[Granted] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    renewed: int = 0
    waits: int = 0

    def grant(self, wanted: Wanted) -> Granted:
        self._raise()
        number, now = len(self.granted) + 1, datetime.now(UTC)
        bundle = replace(paper(generation=self.current), lease_id=f"lease-{number}", expires=now + self.term)
        names = (wanted.account, wanted.application, BundleKind.DIRECT)
        lease = Lease(bundle.lease_id, "", *names, self.current, now, bundle.expires)
        self.granted.append(Granted(bundle, Consumer("", ""), lease, Secret("text")))
        return self.granted[-1]

    def give_back(self, granted: Granted) -> None:
        self.returned.append(granted.lease.id)

    def renew(self, wanted: Wanted, granted: Granted) -> Granted:
        self._raise()
        self.renewed += 1
        if granted.lease.generation != self.current:
            return self.grant(wanted)
        return replace(granted, lease=replace(granted.lease, expires=datetime.now(UTC) + self.term))

    def wait(self, granted: Granted) -> Ended:
        self.waits += 1
        found = self.news.get()
        if isinstance(found, BrokerError):
            raise found
        return found

    def rotate(self) -> None:
        self.current += 1
        self.news.put(Ended(Event.GENERATION, self.current))

    def _raise(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PAUSE", "_CUT", "_AGAIN", "_READ"):
        monkeypatch.setattr(holding, name, (0.0, 0.01))


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.001)


@contextmanager
def followed(source: Source, root: Path, act: Callable[[], object], *, ends: bool = True) -> Iterator[list[object]]:
    """Hold a bundle below `root`; do `act` meanwhile, and with `ends` signal the end then. Yield what came of it."""
    main = threading.main_thread().ident
    assert main

    def acting() -> None:
        try:
            act()
        finally:
            if ends:
                signal.pthread_kill(main, signal.SIGUSR1)

    files = Files(root, [], system_clock)
    came: list[object] = []
    with held_back() as signals:
        held = Held(source, WANTED, files, system_clock)
        held.say = note
        held.publish()
        actor = threading.Thread(target=acting)
        actor.start()
        try:
            came.append(held.follow(signals) > 0)
        except BrokerError as error:
            came.append(error)
        actor.join()
        signal.sigtimedwait({signal.SIGUSR1}, 0)
        yield came
        held.withdraw()
        held.give_back()
        held.close()
        source.news.put(Ended(Event.TIMEOUT))
    assert not list(root.iterdir())


def link(root: Path) -> str:
    return str((root / "current").readlink())


def test_a_rotation_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Source()

    def act() -> None:
        for number in (2, 3):
            source.rotate()
            until(lambda n=number: link(tmp_path) == f"gen-00000{n}")  # type: ignore[misc]
            assert not source.returned
            assert (tmp_path / "gen-000001" / "tls.key").exists(), "the displaced one stays for its grace"

    with followed(source, tmp_path, act) as came:
        assert came == [True]
    assert source.returned == ["lease-1", "lease-2", "lease-3"]
    assert f"generation 3 of mzp-1/reports in {tmp_path}/current" in capsys.readouterr().err


def test_news_of_what_is_held_grants_nothing(tmp_path: Path) -> None:
    """A renewal has brought the generation before the wait said so."""
    source = Source()

    def act() -> None:
        source.news.put(Ended(Event.GENERATION, 1))
        until(lambda: source.waits > 1)

    with followed(source, tmp_path, act) as came:
        assert came == [True]
    assert source.returned == ["lease-1"]


def test_displaced_files_go_with_their_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After their grace, and not at the next rotation."""
    monkeypatch.setattr(directory, "GRACE", timedelta(milliseconds=50))
    monkeypatch.setattr(holding, "_GRACE", timedelta(milliseconds=100))
    source = Source()

    def act() -> None:
        source.rotate()
        until(lambda: source.returned)
        assert not (tmp_path / "gen-000001").exists()
        assert link(tmp_path) == "gen-000002"

    with followed(source, tmp_path, act) as came:
        assert came == [True]
    assert source.returned == ["lease-1", "lease-2"]


def test_a_lease_is_renewed_before_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "_LEAST", timedelta(milliseconds=10))
    monkeypatch.setattr(holding, "_SHARE", (0.0, 0.0))
    source = Source()
    with followed(source, tmp_path, lambda: until(lambda: source.renewed > 2)) as came:
        assert came == [True]
    assert source.returned == ["lease-1"]


def test_a_missed_event_is_noticed_by_renewal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "_LEAST", timedelta(milliseconds=10))
    monkeypatch.setattr(holding, "_SHARE", (0.0, 0.0))
    source = Source(current=1)

    def act() -> None:
        source.current = 2
        until(lambda: link(tmp_path) == "gen-000002")

    with followed(source, tmp_path, act) as came:
        assert came == [True]


@pytest.mark.parametrize(
    ("news", "error"),
    [
        (Ended(Event.REVOKED), DeniedError("ended")),
        (Ended(Event.SUSPENDED), RefusedError("suspended")),
        (DeniedError("no right"), DeniedError("no right")),
    ],
)
def test_an_end_that_is_sure_ends_it(tmp_path: Path, news: Ended | BrokerError, error: BrokerError) -> None:
    source = Source()

    def act() -> None:
        source.errors.append(error)
        source.news.put(news)
        until(lambda: not source.errors)

    with followed(source, tmp_path, act) as came:
        (ended,) = came
    taken = "the lease or the right was taken away: " if isinstance(error, DeniedError) else ""
    assert (type(ended), str(ended)) == (type(error), f"{taken}{error}")


def test_an_expired_identity_ends_nothing(tmp_path: Path) -> None:
    """The one that waited: a renewal with the newest one shows that the right goes on."""
    source = Source()

    def act() -> None:
        source.news.put(Ended(Event.REVOKED))
        until(lambda: source.renewed and source.waits > 1)

    with followed(source, tmp_path, act) as came:
        assert came == [True]


def test_a_service_that_is_away_changes_nothing(tmp_path: Path) -> None:
    source = Source()

    def act() -> None:
        source.news.put(VaultUnavailableError("away"))
        source.news.put(Ended(Event.DRAIN))
        source.news.put(Ended(Event.TIMEOUT))
        until(lambda: source.waits == 4)
        source.errors += [ConflictError("rotated"), VaultUnavailableError("away")]
        source.rotate()
        until(lambda: link(tmp_path) == "gen-000002")

    with followed(source, tmp_path, act) as came:
        assert came == [True]


@pytest.mark.parametrize("renews", [True, False])
def test_files_go_at_the_end_of_the_lease(tmp_path: Path, renews: bool) -> None:
    """Without a service, or while it is away."""
    source = Source(renews=renews, term=timedelta(seconds=0.3))

    def act() -> None:
        source.errors += [VaultUnavailableError("away")] * 10_000

    with followed(source, tmp_path, act, ends=False) as came:
        assert came == [False]
    assert not source.renewed


def test_a_full_disk_keeps_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, point = Source(), Root.point
    failed: list[str] = []

    def full(self: Root, name: str, target: str) -> None:
        if not failed:
            failed.append(target)
            raise OSError(28, "No space left on device")
        point(self, name, target)

    def act() -> None:
        monkeypatch.setattr(Root, "point", full)
        source.rotate()
        until(lambda: failed and link(tmp_path) == "gen-000002")

    with followed(source, tmp_path, act) as came:
        assert came == [True]
    assert source.returned[:2] == ["lease-2", "lease-1"]


def test_a_lease_of_files_that_stay_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, error = Source(), LeftBehindError("a bundle was partly published and cannot be removed")

    def left_behind(*_: object) -> None:
        raise error

    def act() -> None:
        monkeypatch.setattr(Held, "_written", left_behind)
        source.rotate()
        until(lambda: len(source.granted) == 2)

    with followed(source, tmp_path, act) as came:
        assert came == [error]
        assert not source.returned


def test_identity_is_reread_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "jwt"

    def write(text: str) -> None:
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o600)
        fresh.replace(file)

    write("first")
    identity = Identity(f"jwt-file:{file}")
    assert identity() is identity()
    write("second")
    assert (identity().credential.reveal(), identity().is_jwt) == ("second", True)
    write("")
    assert identity().credential.reveal() == "second", "the last good one"
    file.unlink()
    assert identity().credential.reveal() == "second"
