"""Bundles of the agent: what they do when the broker, the directory, the clock or the process fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from broker.agent import following, holding, hooks
from broker.agent.files import Copy
from broker.agent.following import Condition, Follower
from broker.agent.leases import LEASE, STATE
from broker.agent.ports import Output
from broker.agent.tables import BundleTable, Hook, OnStale
from broker.copies import replace
from broker.delivery.formats import FileFormat
from broker.delivery.restoring import whole
from broker.delivery.root import Root
from broker.errors import BrokerError, DeniedError, InputError, RefusedError, VaultUnavailableError
from broker.fetching.service import Application, Service
from broker.model.bundle import Bundle, Granted, Wanted
from broker.model.clock import Clock, system_clock
from broker.model.waiting import Ended, Event
from broker.telemetry import log
from tests.agent.test_holding import WANTED, Source, until

LONG = timedelta(hours=1)


@dataclass
class Broker(Source):
    """A service in memory. `listed` is what it lists as the current generation, beside the waits."""

    listed: int | None = None
    extended: int = 0

    def extend(self, wanted: Wanted, granted: Granted) -> tuple[Granted, int | None]:
        self._raise()
        self.extended += 1
        return replace(granted, lease=replace(granted.lease, expires=datetime.now(UTC) + self.term)), self.current

    def application(self, account: str, application: str) -> Application:
        self._raise()
        return Application(account, application, "ready", self.listed or self.current, None)


@dataclass
class Shelf:
    """An output beside the files, which can be broken."""

    written: list[int] = field(default_factory=list)
    removed: int = 0
    broken: BrokerError | None = None

    def write(self, bundle: Bundle) -> None:
        if self.broken:
            raise self.broken
        self.written.append(bundle.generation)

    def remove(self) -> None:
        self.removed += 1
        if self.broken:
            raise self.broken


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PAUSE", "_CUT", "_AGAIN", "_READ"):
        monkeypatch.setattr(holding, name, (0.0, 0.01))
    monkeypatch.setattr(following, "_AGAIN", (0.0, 0.01))
    monkeypatch.setattr(hooks, "_AGAIN", (0.0, 0.01))
    monkeypatch.setattr(following, "LOOK", 0.01)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


def table(root: Path, **more: Any) -> BundleTable:
    return BundleTable(WANTED, root, **more)


def follower(source: Broker, root: Path, *outputs: Output, clock: Clock = system_clock, **more: Any) -> Follower:
    return Follower(table(root, **more), cast("Service", source), outputs, clock)


@contextmanager
def running(source: Broker, root: Path, *outputs: Output, **more: Any) -> Iterator[Follower]:
    """Run a bundle, and stop it at the end."""
    one = follower(source, root, *outputs, **more)
    one.start()
    try:
        yield one
    finally:
        one.stop()
        one.join()
        source.news.put(Ended(Event.TIMEOUT))


def killed(source: Broker, root: Path, **more: Any) -> None:
    """Leave a directory as a process that was killed does: files, lease and state stay."""
    one = follower(source, root, **more)
    one.once()


def stands(one: Follower, condition: Condition) -> None:
    until(lambda: one.standing.condition is condition)


def link(root: Path) -> str:
    with suppress(FileNotFoundError):
        return str((root / "current").readlink())
    return ""


def test_a_failing_hook_leaves_the_files(root: Path) -> None:
    """Of one that runs once, from cron: the next run tries the hook again."""
    source = Broker()
    one = follower(source, root, hook=Hook(command=("false",)))
    with pytest.raises(RefusedError, match="exit code 1"):
        one.once()
    assert whole(root)
    assert one.standing.condition is Condition.OK
    assert not source.returned
    assert not one.store.state.hooked


def test_files_come_and_go(root: Path) -> None:
    source, shelf = Broker(), Shelf()
    with running(source, root, shelf) as one:
        stands(one, Condition.OK)
        found = whole(root)
        assert found
        assert found.generation == 1
        assert (root / LEASE).stat().st_mode & 0o777 == 0o600
    assert not root.exists()
    assert source.returned == ["lease-1"], "it was revoked"
    assert (shelf.written, shelf.removed > 0) == ([1], True)


def test_a_rotation_reaches_every_output(root: Path, tmp_path: Path) -> None:
    source, shelf = Broker(), Shelf()
    copies = (Copy(FileFormat.KEY, tmp_path / "a.key", 0o640), Copy(FileFormat.CERTIFICATE, tmp_path / "a.crt", 0o644))
    with running(source, root, shelf, copies=copies) as one:
        stands(one, Condition.OK)
        assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "a.key").read_bytes() == (root / "current/tls.key").read_bytes()
        source.rotate()
        until(lambda: shelf.written == [1, 2])
        assert link(root) == "gen-000002"
    assert not list(tmp_path.iterdir())


def test_a_broken_output_stops_nothing(root: Path, tmp_path: Path) -> None:
    """The files follow, the hook runs, the lease goes on; and it is tried again until it works."""
    source, shelf = Broker(), Shelf(broken=InputError("the other Vault is away"))
    hook = Hook(command=("sh", "-c", f"echo $BROKER_GENERATION >> {tmp_path / 'ran'}"))
    with running(source, root, shelf, hook=hook) as one:
        stands(one, Condition.UNWRITABLE)
        source.rotate()
        until(lambda: link(root) == "gen-000002")
        until(lambda: (tmp_path / "ran").read_text().endswith("2\n"))
        assert (one.standing.condition, one.standing.message) == (Condition.UNWRITABLE, "the other Vault is away")
        assert not source.returned
        shelf.broken = None
        stands(one, Condition.OK)
        assert shelf.written[-1] == 2
        shelf.broken = InputError("away again")
    assert not root.exists()
    assert source.returned == ["lease-1", "lease-2"], "it was revoked nevertheless"


def test_each_failure_is_reported(root: Path, tmp_path: Path) -> None:
    """Also one of the same kind as an earlier one, which is over."""
    source, shelf, heard = Broker(), Shelf(), tmp_path / "heard"
    heard.touch()
    hook = Hook(on_failure=("sh", "-c", f"echo $BROKER_REASON >> {heard}"))
    with running(source, root, shelf, hook=hook) as one:
        for number in (1, 2):
            stands(one, Condition.OK)
            shelf.broken = InputError("the other Vault is away")
            source.rotate()
            until(lambda number=number: heard.read_text() == "unwritable\n" * number)  # type: ignore[misc]
            shelf.broken = None


def test_other_outputs_end_with_the_lease(root: Path) -> None:
    """Though the files stay for a while."""
    source, shelf = Broker(term=timedelta(seconds=0.3)), Shelf()
    with running(source, root, shelf, max_stale=LONG) as one:
        stands(one, Condition.OK)
        source.errors = [VaultUnavailableError("away")] * 100_000
        before = shelf.removed
        stands(one, Condition.STALE)
        until(lambda: shelf.removed > before)
        assert whole(root)
        source.term = LONG
        source.errors.clear()
        before = len(shelf.written)
        stands(one, Condition.OK)
        assert len(shelf.written) > before


@pytest.mark.parametrize("broken", ["wait", "poll"])
def test_either_follows_alone(root: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """The wait is cut for ever, or the list is old for ever."""
    source = Broker(listed=1)
    said: set[tuple[str, object]] = set()
    log.send_to(log.Level.INFO, lambda _level, event, fields: said.add((event, fields.get("bundle"))))
    if broken == "wait":
        monkeypatch.setattr(holding, "_POLL", (0.0, 0.01))
        monkeypatch.setattr(source, "wait", lambda _: _raise(VaultUnavailableError("cut")))
    with running(source, root) as one:
        stands(one, Condition.OK)
        source.current = 2
        if broken == "wait":
            source.listed = 2
        else:
            source.news.put(Ended(Event.GENERATION, 2))
        until(lambda: link(root) == "gen-000002")
    log.reset()
    assert ("wait was cut" in {event for event, _ in said}) == (broken == "wait")
    assert {name for _, name in said} == {table(root).name}


def _raise(error: Exception) -> Any:
    raise error


def test_a_kill_costs_no_lease_and_no_write(root: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    hook = Hook(command=("sh", "-c", f"echo $BROKER_GENERATION >> {ran}"))
    source = Broker()
    copies = (Copy(FileFormat.KEY, tmp_path / "a.key"),)
    killed(source, root, hook=hook, copies=copies)
    before = {path: path.stat().st_ino for path in (*root.glob("gen-*/*"), tmp_path / "a.key")}
    with running(source, root, hook=hook, copies=copies) as one:
        stands(one, Condition.OK)
        assert one.hooks.settled
        after = {path: path.stat().st_ino for path in (*root.glob("gen-*/*"), tmp_path / "a.key")}
        changed = {path.name for path in before if before[path] != after.get(path)}
        assert changed <= {"manifest.json"}, "only the end of the lease"
        assert (len(source.granted), source.renewed, source.returned) == (1, 1, [])
        source.rotate()
        until(lambda: ran.read_text().split() == ["1", "2"])


@pytest.mark.parametrize("damage", ["key", "lease", "link", "manifest"])
def test_what_is_not_whole_is_not_used(root: Path, damage: str) -> None:
    source = Broker()
    killed(source, root)
    place = (root / "current").resolve()
    if damage == "key":
        (place / "tls.key").write_text("half")
    elif damage == "lease":
        (root / LEASE).unlink()
    elif damage == "link":
        (root / "current").unlink()
    else:
        (place / "manifest.json").write_text("{")
    with running(source, root) as one:
        stands(one, Condition.OK)
        assert whole(root)
        assert len(source.granted) == 2
    assert not root.exists()
    assert source.returned == ([] if damage == "lease" else ["lease-1"]) + ["lease-2"]


def test_next_start_removes_old_copies(root: Path, tmp_path: Path) -> None:
    """Those of a configuration before, and the working file that a kill left."""
    source, old = Broker(), tmp_path / "old.key"
    killed(source, root, copies=(Copy(FileFormat.KEY, old),))
    (tmp_path / ".old.key.new").write_text("half")
    with running(source, root) as one:
        stands(one, Condition.OK)
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_denied_one_keeps_to_its_budget(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Broker()
    pauses: list[float] = []
    source.errors = [DeniedError("no right")] * 1000
    monkeypatch.setattr(following, "_AGAIN", (1.0, 1.0))
    one = follower(source, root)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 8:
            one.stop()

    monkeypatch.setattr(one._wake, "wait", pause)
    one.start()
    one.join()
    assert one.standing.condition is Condition.DENIED
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 32, 32]
    assert len(source.errors) == 1000 - 9


@pytest.mark.parametrize(
    ("error", "condition"),
    [(DeniedError("revoked"), Condition.REVOKED), (RefusedError("suspended"), Condition.REFUSED)],
)
def test_files_go_and_come_back(root: Path, tmp_path: Path, error: Exception, condition: Condition) -> None:
    """And the hooks hear of both."""
    said = tmp_path / "said"
    say = ("sh", "-c", f"echo $BROKER_EVENT $BROKER_REASON >> {said}")
    source = Broker()
    with running(source, root, hook=Hook(command=say, on_failure=say)) as one:
        until(lambda: said.exists() and said.read_text() == "published\n")
        source.errors = [error] * 10_000  # type: ignore[list-item]
        source.news.put(Ended(Event.REVOKED))
        stands(one, condition)
        until(lambda: not link(root) and f"failure {condition.value}\n" in said.read_text())
        assert not list(root.glob("gen-*"))
        source.errors.clear()
        until(lambda: said.read_text().splitlines()[-1] == "published")
        assert whole(root)
    assert said.read_text().splitlines() == ["published", f"failure {condition.value}", "published"]


@pytest.mark.slow
@pytest.mark.parametrize("on_stale", OnStale)
def test_stale_files(root: Path, on_stale: OnStale) -> None:
    source = Broker(term=timedelta(seconds=0.2))
    with running(source, root, on_stale=on_stale, max_stale=timedelta(seconds=0.2)) as one:
        stands(one, Condition.OK)
        source.errors = [VaultUnavailableError("away")] * 100_000
        stands(one, Condition.STALE)
        if on_stale is OnStale.REMOVE:
            until(lambda: not link(root))
        else:
            until(lambda: one.failures > 5)
            assert whole(root)
        source.term = LONG
        source.errors.clear()
        stands(one, Condition.OK)
        assert whole(root)


def test_a_renamed_directory_is_emptied(root: Path, tmp_path: Path) -> None:
    source, other = Broker(), tmp_path / "other"
    with running(source, root) as one:
        stands(one, Condition.OK)
        root.rename(other)
        until(lambda: whole(root))
        until(lambda: not list(other.iterdir()))
    assert not root.exists()
    assert source.returned == ["lease-1", "lease-2"]


def test_a_full_disk_keeps_what_is_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, write, full = Broker(), Root.write, [False]

    def failing(self: Root, name: str, content: Any) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        write(self, name, content)

    monkeypatch.setattr(Root, "write", failing)
    with running(source, root) as one:
        stands(one, Condition.OK)
        full[0] = True
        source.rotate()
        stands(one, Condition.UNWRITABLE)
        found = whole(root)
        assert found
        assert found.generation == 1
        full[0] = False
        until(lambda: link(root) == "gen-000002")


def test_a_clock_that_jumps_costs_no_flood(root: Path) -> None:
    """While it is ahead, each lease has ended before it begins."""
    source, ahead = Broker(), [timedelta(0)]
    with running(source, root, clock=lambda: system_clock() + ahead[0]) as one:
        stands(one, Condition.OK)
        ahead[0] = timedelta(days=1)
        stands(one, Condition.CLOCK)
        assert whole(root)
        ahead[0] = timedelta(0)
        stands(one, Condition.OK)
    assert not root.exists()


@pytest.mark.slow
def test_an_older_lease_waits_for_the_hook(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `rotation retire` knows a consumer that has not moved, however long its hook fails."""
    monkeypatch.setattr(holding, "_GRACE", timedelta(0))
    monkeypatch.setattr("broker.delivery.directory.GRACE", timedelta(0))
    go = tmp_path / "go"
    source = Broker(term=timedelta(seconds=2))
    with running(source, root, hook=Hook(command=("test", "-e", str(go)))) as one:
        stands(one, Condition.OK)
        source.rotate()
        until(lambda: one.hooks.failures > 3 and source.extended)
        assert "lease-1" not in source.returned
        go.touch()
        until(lambda: "lease-1" in source.returned)


def test_two_agents_share_no_directory(root: Path) -> None:
    source = Broker()
    with running(source, root) as one:
        stands(one, Condition.OK)
        with running(source, root) as other:
            stands(other, Condition.UNWRITABLE)
            assert "another agent uses" in other.standing.message
        assert whole(root)


def test_state_holds_no_secret(root: Path) -> None:
    source = Broker()
    killed(source, root)
    assert "text" not in (root / STATE).read_text()
    assert (root / STATE).stat().st_mode & 0o777 == 0o600
    shutil.rmtree(root)
